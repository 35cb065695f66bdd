#!/usr/bin/env bash
# Runs the suite and the benchmark on a machine that has a torch of its own, and no network: the wheels of a folder,
# which `nox -s device_wheels` fills, bring the rest.
#
#     ci/on_device.sh WHEELS RECORDS [--device DEVICE] [--seconds S] [PART ...]
#
# DEVICE is cuda unless given; a PART is local, distributed or bench, all three unless given. Each part is ended after S
# seconds, 530 unless given. RECORDS receives local.jsonl, distributed.jsonl and bench.json, what each part printed, the
# tables, and summary.txt. PYTHON names the interpreter, python3 unless set. The exit status is that of the worst part.
set -uo pipefail

usage() {
    sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0"
}

device=cuda
seconds=530
words=()
while (($#)); do
    case $1 in
        --device | --seconds) (($# > 1)) || { echo "on_device.sh: $1 needs a value; see --help" >&2; exit 2; } ;;&
        --device) device=$2; shift 2 ;;
        --device=*) device=${1#*=}; shift ;;
        --seconds) seconds=$2; shift 2 ;;
        --seconds=*) seconds=${1#*=}; shift ;;
        -h | --help) usage; exit 0 ;;
        -*) echo "on_device.sh: unknown option $1; see --help" >&2; exit 2 ;;
        *) words+=("$1"); shift ;;
    esac
done
if ((${#words[@]} < 2)); then
    usage >&2
    exit 2
fi
wheels=$(cd "${words[0]}" 2>/dev/null && pwd) && compgen -G "$wheels/inbackward-*.whl" >/dev/null || {
    echo "on_device.sh: ${words[0]}: no wheel of inbackward there; make the folder with nox -s device_wheels" >&2
    exit 2
}
parts=("${words[@]:2}")
((${#parts[@]})) || parts=(local distributed bench)
for part in "${parts[@]}"; do
    case $part in
        local | distributed | bench) ;;
        *) echo "on_device.sh: unknown part $part; known: local, distributed, bench" >&2; exit 2 ;;
    esac
done

if [[ ! $device || ! $seconds =~ ^[1-9][0-9]*$ ]]; then
    echo "on_device.sh: --device takes a device, such as cuda, and --seconds a number above 0; see --help" >&2
    exit 2
fi
python=$(command -v "${PYTHON:-python3}") && python=$(cd "$(dirname "$python")" && pwd)/$(basename "$python") || {
    echo "on_device.sh: no interpreter ${PYTHON:-python3}; set PYTHON" >&2
    exit 2
}
mkdir -p "${words[1]}" || exit 2
records=$(cd "${words[1]}" && pwd)
root=$(cd "$(dirname "$0")/.." && pwd)
place=$(mktemp -d) || exit 1
trap 'rm -rf "$place"' EXIT
"$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$place/site" "$wheels"/*.whl || exit 1
mkdir "$place/empty"
cd "$place/empty" || exit 1 # pytest must not find the checkout's pyproject.toml
export PYTHONPATH=$place/site
export TORCHINDUCTOR_COMPILE_THREADS=1 # each pytest worker compiles: more threads than cores gain nothing

cores=$(nproc)
workers=$((cores < 12 ? cores : 12)) # on an accelerator, each has a context of half a gigabyte
groups=$((cores < 8 ? 2 : cores / 4)) # of up to four ranks each

suite() { # suite NAME WORKERS OPTION...
    local name=$1 number=$2
    shift 2
    "$python" -m pytest --pyargs inbackward_conformance -p no:randomly -p no:cacheprovider -q -n "$number" \
        --implementation reference --implementation reference-handed --implementation torch \
        --device "$device" --case-seconds 120 --conformance-report "$records/$name.jsonl" "$@"
}
export -f suite
export python records device

status=0
run() { # run NAME COMMAND...
    local name=$1 began=$SECONDS code
    shift
    timeout --kill-after=10 "$seconds" "$@" >"$records/$name.log" 2>&1
    code=$?
    echo "$name: exit status $code after $((SECONDS - began)) s" | tee "$records/$name.status"
    ((code > status)) && status=$code
}

for part in "${parts[@]}"; do
    case $part in
        local) run local bash -c 'suite local "$@"' _ "$workers" ;;
        distributed) run distributed bash -c 'suite distributed "$@"' _ "$groups" --distributed ;;
        bench)
            run bench env PYTHONPATH="$root:$place/site" "$python" -m bench --device "$device" \
                --seconds 0.1 --rounds 3 --json "$records/bench.json"
            ;;
    esac
done
"$python" "$root/ci/summarize_device.py" "$records" "$device" | tee "$records/summary.txt" || ((status)) || status=1
exit "$status"
