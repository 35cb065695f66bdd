"""Whatever plan Hypothesis draws is trained as in the standard loop.

The other chapters hold to what somebody thought of; this one looks for the combinations that nobody did. Models are
graphs of small layers; one to three optimizers are on arbitrary, overlapping subsets of their parameters. What fails is
shrunk, and the detail ends with the plan. `--hypothesis-profile` says how many plans there are (`quick`, the default,
`ci` or `thorough`); they are the same in each run, others with another `--conformance-seed`.
"""

from __future__ import annotations

import pytest

from inbackward_conformance.checking.drawn import Drawn
from inbackward_conformance.checking.strategies import plans


@pytest.mark.must
def test_structures(drawn: Drawn) -> None:
    """Whatever is shared, used several times, skipped, frozen and left out, and in whatever dtype: it trains alike.

    Frozen parameters are not among those attached.
    """
    drawn(plans.structures())


@pytest.mark.must
def test_shared_storage(drawn: Drawn) -> None:
    """Whichever parameters are views of others' memory, and whatever happens in training, it trains alike."""
    drawn(plans.shared_storage())


@pytest.mark.must
def test_grad_modes(drawn: Drawn) -> None:
    """Whichever backwards run inside `torch.inference_mode()` or `torch.no_grad()`, it trains alike."""
    drawn(plans.grad_modes())


@pytest.mark.must
@pytest.mark.may_refuse("at attachment")
def test_frozen_parameters(drawn: Drawn) -> None:
    """Whichever of the attached parameters are frozen, and thawed later, it trains alike, or is refused."""
    drawn(plans.frozen_parameters())


@pytest.mark.must
def test_histories(drawn: Drawn) -> None:
    """Whatever happens in training, and in whatever order, it trains alike.

    What happens: backward in its forms, two losses, options that change, schedules, user's hooks, parameters that are
    frozen and thawed, save and load, further attachments, detaching, copies, and surgery of the model.
    """
    drawn(plans.histories())


@pytest.mark.must
def test_checkpoints(drawn: Drawn) -> None:
    """Whenever it is saved, taken back to what was saved, or resumed in a model that is built anew, it trains alike."""
    drawn(plans.checkpoints())


@pytest.mark.must
def test_attachments(drawn: Drawn) -> None:
    """Whatever is attached in mid-training, to a copy, or again after it was detached: it trains alike."""
    drawn(plans.attachments())


@pytest.mark.must
def test_live_model(drawn: Drawn) -> None:
    """The same, with two live models beside each other, compared after each thing that happens to both."""
    drawn.live()


@pytest.mark.must
def test_new_data(drawn: Drawn) -> None:
    """Whichever parameters get other data, whatever dtype the model is cast to in training, it trains alike.

    Where the standard loop raises, backward raises.
    """
    drawn(plans.new_data(), standard_may_raise=True)


@pytest.mark.must
@pytest.mark.may_refuse
def test_swapped_tensors(drawn: Drawn) -> None:
    """Whichever conversions swap the tensors under Parameter objects in training, it trains alike, or is refused.

    Where the standard loop raises, backward raises.
    """
    drawn(plans.swapped_tensors(), standard_may_raise=True)


@pytest.mark.must
def test_steps_by_hand(drawn: Drawn) -> None:
    """Optimizers without a hook, stepped by hand now and then, train alike beside parameters that are hooked."""
    drawn(plans.steps_by_hand())


@pytest.mark.must
@pytest.mark.may_refuse
def test_hooked_and_unhooked(drawn: Drawn) -> None:
    """Optimizers without a hook on hooked parameters step with the others, in order of attachment, or are refused."""
    drawn(plans.hooked_and_unhooked())


@pytest.mark.must
@pytest.mark.may_refuse
def test_repeated_listings(drawn: Drawn) -> None:
    """Parameters listed twice train as an ordinary optimizer trains that list, or are refused."""
    drawn(plans.repeated_listings())


@pytest.mark.must
@pytest.mark.may_refuse("at attachment")
def test_gradients_from_before(drawn: Drawn) -> None:
    """Gradients from before attachment count at the first backward that reaches the assignment, or are refused."""
    drawn(plans.gradients_from_before())
