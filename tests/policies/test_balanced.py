"""Balanced: what any run of tokens may have from the LLM, and when the LLM is shut out."""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from purify_hooks.policies._code import SPAN, CodeSigns, is_code
from purify_hooks.policies._gap import gap_share
from purify_hooks.policies.balanced import LARGEST_GAP, Balanced
from purify_plugins import ConfigError, Purifier
from purify_plugins.decode.sessions import SessionPair
from purify_plugins.policy import Context
from purify_plugins.testing import ToySource, letters
from purify_plugins.types import Token, Vocabulary
from tests.policies.cases import SEEDS, every_answer, law, prompted, rows, unprompted

NATS = st.floats(0.0, 4.0)
EXACT = 1e-6


def near(*numbers: float) -> object:
    return pytest.approx(numbers, abs=1e-5)


def steps(*pairs: tuple[float, float]) -> list[Token]:
    """A record of tokens with these probabilities in the fused row and the SLM's."""
    logs = [(math.log(fused), math.log(slm)) for fused, slm in pairs]
    return [Token(0, None, slm, fused, kl=0.0, peak=fused - slm) for fused, slm in logs]


@st.composite
def settings(draw: st.DrawFn) -> Balanced:
    """Any settings of the rule, plain or with everything that follows the text."""
    plain = Balanced(draw(NATS), draw(st.floats(0.0, 3.0)), draw(NATS))
    gaps, endless = st.floats(0.0, LARGEST_GAP), st.one_of(st.just(math.inf), NATS)
    found = replace(
        plain,
        gap=draw(st.one_of(st.just(0.0), gaps)),
        hedge=draw(st.one_of(st.just(0.0), st.floats(0.001, 0.5))),
        numbers=draw(endless),
        gap_from=draw(st.one_of(st.just(0.0), st.floats(1e-3, 4.0))),
    )
    if memory := draw(st.one_of(st.just(0.0), st.floats(1.0, 20.0))):
        limits = {name: draw(endless) for name in ("opening", "opening_in_code")}
        found = replace(found, memory=memory, gap_limit=draw(gaps), **limits)
    return found.bind(letters("1a"))


@given(policy=settings(), seed=SEEDS)
def test_every_run_of_every_answer_is_within_the_budget(policy: Balanced, seed: int) -> None:
    fused, slm = every_answer(policy, seed)
    taken = (1 + policy.doubt) * fused - slm - policy.largest_gap * gap_share(slm, policy.gap_from)
    taken = torch.where(fused > -torch.inf, taken, -torch.inf)
    for length in range(1, 6):
        assert taken.clamp(min=-100).unfold(1, length, 1).sum(-1).max() <= policy.budget + EXACT
    assert torch.where(fused > -torch.inf, fused - slm, -torch.inf).max() <= policy.budget + EXACT


@given(policy=settings(), seed=SEEDS)
def test_no_number_takes_more_than_its_budget(policy: Balanced, seed: int) -> None:
    """Token 0 of three is a digit, token 1 a letter, and token 2 ends the answer."""
    fused, slm = every_answer(policy, seed)
    tokens = torch.cartesian_prod(*[torch.arange(3)] * 5)
    ratio = torch.where(fused > -torch.inf, fused - slm, 0.0).clamp(min=0.0, max=math.log(10))
    spent = torch.zeros(len(tokens), dtype=ratio.dtype)
    for at in range(5):
        spent = torch.where(tokens[:, at] == 0, spent + ratio[:, at], 0.0)
        assert spent.max() <= policy.numbers + EXACT


@given(policy=settings(), seed=SEEDS)
def test_a_passage_is_no_likelier_than_its_allowance_says(policy: Balanced, seed: int) -> None:
    answers = every_answer(policy, seed)
    for length in range(1, 6):
        fused, slm = (path[:, :length].sum(-1) for path in answers)
        possible = (fused > -torch.inf) & (slm > -torch.inf)
        for likely, surprisal in zip(fused[possible].tolist(), (-slm[possible]).tolist(), strict=True):
            assert likely + surprisal <= policy.allowance(length, surprisal) + EXACT


def test_an_llm_that_knows_the_rule_can_take_all_that_it_promises() -> None:
    """Half-sure of three digits, sure of the fourth: the bound is met, so no smaller one is true."""
    policy, slm = Balanced(4.0), torch.full((1, 10), 0.1).log()
    half = math.exp(((policy.budget - math.log(10)) / 3 - math.log(10)) / 2)
    state, digits, chance = policy.start(unprompted(1)), torch.tensor([0]), 1.0
    for sure in (half, half, half, 1 - 1e-9):
        llm = torch.tensor([[sure] + [(1 - sure) / 9] * 9]).log()
        fused = law(policy, llm, slm, state)
        chance *= float(fused[0, 0].exp())
        state = policy.advance(state, digits, llm, slm, fused)
    assert chance == pytest.approx(math.sqrt(math.exp(policy.budget) * 1e-4), rel=1e-4)


def walked(policy: Balanced, pairs: list[tuple[float, float]]) -> list[float]:
    """The level after each token, where the models give it these probabilities among two."""
    state, levels = policy.start(unprompted(1)), []
    for pair in pairs:
        llm, slm = (torch.tensor([[p, 1 - p]]).log() for p in pair)
        state = policy.advance(state, torch.tensor([0]), llm, slm, law(policy, llm, slm, state))
        levels += state[0].tolist()
    return levels


def test_only_what_the_llm_alone_is_sure_of_is_counted() -> None:
    sure, shared, unsure = (0.99, 0.1), (0.99, 0.99), (0.05, 0.01)
    policy, cost = Balanced(), 2 * math.log(0.99) - math.log(0.1)
    assert walked(policy, [sure, shared, sure]) == near(
        cost, cost + math.log(0.99), 2 * cost + math.log(0.99)
    )
    assert walked(policy, [sure, unsure]) == near(cost, cost + 2 * math.log(0.05) - math.log(0.01))


def test_the_level_falls_by_the_drain_at_most_and_never_below_nothing() -> None:
    unsure = (0.01, 0.9)
    policy, sure = Balanced(drain=0.5), (0.99, 0.1)
    cost = 2 * math.log(0.99) - math.log(0.1)
    assert walked(policy, [unsure, sure, unsure, unsure]) == near(0.0, cost, cost - 0.5, cost - 1.0)


def test_what_the_llm_was_denied_counts_as_if_it_had_been_taken() -> None:
    policy, secret = Balanced(budget=3.0), (0.999, 0.05)
    cost = 2 * math.log(0.999) - math.log(0.05)
    assert walked(policy, [secret] * 4) == near(cost, 2 * cost, 6.0, 6.0)


def test_a_prompt_known_by_heart_shuts_the_llm_out() -> None:
    policy = Balanced()
    known = prompted(torch.full((1, 3), -0.01), torch.full((1, 3), -5.0))
    guessed = prompted(torch.full((1, 3), -4.0), torch.full((1, 3), -5.0))
    llm, slm = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.2, 0.8]]).log()
    torch.testing.assert_close(law(policy, llm, slm, policy.start(known)), slm)
    torch.testing.assert_close(law(policy, llm, slm, policy.start(guessed)), llm)


def test_a_prompt_weighs_what_it_weighs_inside_an_answer() -> None:
    """So an answer continued in a second call has no second budget."""
    policy = Balanced()
    scores = torch.tensor([[0.9, 0.5, 0.99]]).log(), torch.tensor([[0.2, 0.1, 0.3]]).log()
    level, *_ = policy.start(prompted(*scores))
    pairs = list(zip(*(score.exp()[0].tolist() for score in scores), strict=True))
    assert level.tolist() == near(walked(policy, pairs)[-1])


def test_padding_on_the_left_of_a_prompt_is_free() -> None:
    llm, slm = torch.tensor([[0.0, 0.0, -0.1]]), torch.tensor([[0.0, 0.0, -4.0]])
    assert Balanced().start(prompted(llm, slm)) == Balanced().start(prompted(llm[:, 2:], slm[:, 2:]))


FOLLOWING = Balanced(6.0, 2.0, gap=0.5, gap_limit=2.0, memory=4.0, hedge=0.05)


def test_what_the_slm_is_worse_by_on_ordinary_text_is_not_counted() -> None:
    pair = (0.99, 0.4)
    cost = 2 * math.log(0.99) - math.log(0.4)
    assert walked(Balanced(), [pair] * 3)[-1] == pytest.approx(3 * cost, abs=1e-5)
    assert walked(Balanced(gap=0.5), [pair] * 3)[-1] == pytest.approx(3 * (cost - 0.5), abs=1e-5)
    assert walked(Balanced(gap=1.0), [pair] * 3)[-1] == 0.0


def test_the_gap_follows_the_text_up_to_its_limit() -> None:
    ratio, gap = math.log(0.8) - math.log(0.2), FOLLOWING.gap
    scores = torch.full((1, 40), math.log(0.8)), torch.full((1, 40), math.log(0.2))
    gaps = [float(state[1]) for state in FOLLOWING.reading(prompted(*scores))]
    assert gaps[1] == pytest.approx(gap + (ratio - gap) / 4, abs=1e-6)
    assert gaps[-1] == pytest.approx(ratio, abs=1e-4)
    wide = torch.full((1, 40), -0.01), torch.full((1, 40), -9.0)
    assert float(FOLLOWING.start(prompted(*wide))[1]) == 2.0


def test_what_somebody_else_says_in_a_chat_moves_the_level_alone() -> None:
    """An LLM that was taught answers, not questions, counted as the worse model as its answer began."""
    llm, slm = torch.tensor([[-0.1, -9.0, -8.0, -0.2]]), torch.tensor([[-6.0, -4.0, -3.0, -1.0]])
    whole = Context(llm, slm, torch.tensor([4]), torch.tensor([False]))
    level, gap, weight, *_ = FOLLOWING.start(replace(whole, turn=torch.tensor([0])))
    before, moved, doubted, *_ = FOLLOWING.start(whole)
    assert (float(gap), float(weight)) == pytest.approx((FOLLOWING.gap, FOLLOWING.hedge))
    assert float(doubted) > 5 * FOLLOWING.hedge
    assert float(moved) < FOLLOWING.gap
    assert abs(float(level - before)) < 1.0
    _, *own = FOLLOWING.start(replace(whole, turn=torch.tensor([1])))
    alone = FOLLOWING.start(prompted(llm[:, -1:], slm[:, -1:]))
    assert [float(each) for each in own[:2]] == pytest.approx([float(each) for each in alone[1:3]])


def test_padding_on_the_left_of_a_prompt_moves_neither_gap_nor_hedge() -> None:
    llm, slm = torch.tensor([[0.0, 0.0, -0.1, -2.0]]), torch.tensor([[0.0, 0.0, -4.0, -1.0]])
    padded = Context(llm, slm, torch.tensor([2]), torch.tensor([False]))
    bare = prompted(llm[:, 2:], slm[:, 2:])
    assert FOLLOWING.start(padded) == FOLLOWING.start(bare)


def test_a_hedge_goes_over_to_the_model_that_predicts_the_text() -> None:
    """To the LLM but for its share, to the SLM by half: what only the LLM knows can still be said."""
    better, worse = torch.full((1, 30), -0.7), torch.full((1, 30), -3.0)
    llm, slm = torch.tensor([[0.6, 0.4]]).log(), torch.tensor([[0.3, 0.7]]).log()
    wide = replace(FOLLOWING, budget=200.0)
    for told, weight in (((better, worse), FOLLOWING.hedge), ((worse, better), 0.5)):
        fused = law(wide, llm, slm, wide.start(prompted(*told))).exp()
        torch.testing.assert_close(fused, (1 - weight) * llm.exp() + weight * slm.exp(), atol=0.01, rtol=0.0)


def test_a_hedge_is_never_above_the_ceiling_nor_off_the_sum() -> None:
    llm, slm = torch.tensor([[0.98, 0.01, 0.01]]).log(), torch.tensor([[0.02, 0.9, 0.08]]).log()
    policy = Balanced(budget=1.0, hedge=0.1)
    weights = policy.fuse(llm, slm, policy.start(unprompted(1)))
    assert float(weights.exp().sum()) == pytest.approx(1.0, abs=1e-6)
    assert float((weights - slm).max()) <= 1.0 + EXACT


def test_a_number_the_llm_alone_knows_takes_no_more_than_its_budget() -> None:
    """Eight digits, hyphens between them: under a budget of 30 the LLM would have had them all."""
    vocabulary = letters("0123456789- a")
    digits = [*range(3), 10, *range(3), 10, 4, 5]
    slm = torch.tensor([[0.099] * 10 + [0.0033] * 3 + [0.0001]]).log().log_softmax(-1)
    free, policy = (Balanced(30.0, 2.0, numbers=nats).bind(vocabulary) for nats in (math.inf, 6.0))
    for rule, least, most in ((free, 0.9, 1.0), (policy, 0.0, math.exp(6 - 8 * math.log(10)) * 2)):
        state, chance = rule.start(unprompted(1)), 1.0
        for digit in digits:
            llm = torch.full((1, 14), 0.0001).index_fill(1, torch.tensor([digit]), 0.9987).log()
            fused = law(rule, llm, slm, state)
            chance *= float(fused[0, digit].exp()) if digit < 10 else 1.0
            state = rule.advance(state, torch.tensor([digit]), llm, slm, fused)
        assert least <= chance <= most
        word = rule.advance(state, torch.tensor([12]), llm, slm, fused)
        assert float(word[3]) == 0.0  # after a letter another number begins


def test_that_a_number_comes_at_all_is_no_part_of_it() -> None:
    """Asked for the answer only, an SLM would begin with a word: "42" cost 8 nats more than it is worth."""
    policy = Balanced(30.0, 2.0, numbers=6.0).bind(letters("0123456789 a"))
    slm = torch.tensor([[3e-5] * 10 + [0.4, 0.4, 0.1997]]).log().log_softmax(-1)
    state, chance = policy.start(unprompted(1)), []
    for digit in (4, 2, 7, 1):
        llm = torch.full((1, 13), 1e-4).index_fill(1, torch.tensor([digit]), 0.9988).log()
        fused = law(policy, llm, slm, state)
        chance.append(float(fused[0, digit].exp()))
        state = policy.advance(state, torch.tensor([digit]), llm, slm, fused)
    assert chance[:2] == pytest.approx([0.9988, 0.9988], abs=1e-3)
    left = 6 - 2 * math.log(10)
    assert chance[2] == pytest.approx(3e-5 * math.exp(left), rel=0.01)
    assert chance[3] == pytest.approx(3e-5, rel=0.01)


def test_a_token_of_several_digits_counts_for_all_of_them() -> None:
    vocabulary = Vocabulary((b"12", b"123", b"a", b""), frozenset((3,)), {3: "<end>"})
    policy = Balanced(30.0, 2.0, numbers=6.0).bind(vocabulary)
    assert policy.lengths == (2, 3)
    slm = torch.tensor([[1e-6, 1e-6, 0.5, 0.499998]]).log()
    for token, most in ((0, 0.997), (1, 1e-6 * math.exp(6.0))):
        llm = torch.full((1, 4), 1e-3).index_fill(1, torch.tensor([token]), 0.997).log()
        fused = law(policy, llm, slm, policy.start(unprompted(1)))
        assert float(fused[0, token].exp()) == pytest.approx(most, rel=0.01)


def test_a_record_in_which_a_number_took_too_much_does_not_hold() -> None:
    policy = Balanced(30.0, 2.0, numbers=4.0).bind(letters("12-a"))
    dear, cheap = (math.log(0.1), math.log(0.9)), (math.log(0.5), math.log(0.5))
    record = [
        Token(at, None, slm, fused, kl=0.0, peak=max(fused - slm, 0.0))
        for at, (slm, fused) in ((0, dear), (2, cheap), (1, dear))
    ]
    assert not policy.holds(record)
    assert policy.holds([record[0], record[1]._replace(id=3), record[2]])
    assert replace(policy, numbers=5.0).holds(record)


def test_in_symbols_what_is_said_of_a_token_is_shared_out() -> None:
    bytes_ = FOLLOWING.in_symbols(4.0)
    assert (bytes_.gap, bytes_.gap_limit, bytes_.memory, bytes_.hedge) == (0.125, 0.5, 16.0, 0.0125)
    assert bytes_.budget == FOLLOWING.budget + FOLLOWING.drain
    parts = replace(FOLLOWING, gap_from=0.5, opening_in_code=1.0)  # bytes inside a word are no easy words
    assert parts.in_symbols(4.0) == bytes_


def recited(policy: Balanced, easy: int, cost: float = 0.01) -> float:
    """The log-probability of twelve words that cost the SLM 4 nats each, with easy words after each.

    An easy word costs the SLM `cost` nats.
    """
    state, total = policy.start(unprompted(1)), 0.0
    for _ in range(12):
        for llm, slm in [(0.99, math.exp(-4)), *[(0.99, math.exp(-cost))] * easy]:
            rows_ = [torch.tensor([[each, 1 - each]], dtype=torch.float64).log() for each in (llm, slm)]
            fused = law(policy, *rows_, state)
            state = policy.advance(state, torch.tensor([0]), *rows_, fused)
            total += float(fused[0, 0]) if slm < 0.1 else 0.0
    return total


def test_words_that_the_slm_is_sure_of_pay_for_no_others_with_gap_from() -> None:
    plain = Balanced(12.0, gap=1.3, gap_limit=2.3, memory=16.0)
    kept = replace(plain, gap_from=0.5)
    assert recited(plain, easy=2) > -0.2  # it comes out as from the LLM
    assert recited(kept, easy=2) < recited(kept, easy=0) + 1.0 < -25.0
    record = steps((0.99, math.exp(-4)), (0.99, 0.99), (0.99, 0.99)) * 12
    assert plain.holds(record)
    assert not kept.holds(record)


@pytest.mark.parametrize("cost", [0.01, 0.3, 0.5, 1.0])
def test_with_all_of_the_gap_from_its_limit_no_easy_word_pays_for_others(cost: float) -> None:
    plain = Balanced(12.0, gap=1.3, gap_limit=2.3, memory=16.0)
    assert recited(plain, easy=2, cost=cost) > -1.0
    assert recited(replace(plain, gap_from=2.3), easy=2, cost=cost) < -25.0
    assert (recited(replace(plain, gap_from=0.5), easy=2, cost=cost) < -25.0) == (cost < 0.1)


@given(gap=st.floats(0.0, LARGEST_GAP), easy=st.integers(0, 3), sure=st.floats(0.2, 0.999))
def test_a_recitation_diluted_with_easy_tokens_is_within_its_allowance(
    gap: float, easy: int, sure: float
) -> None:
    """Each word of a passage that the SLM would hardly write, then tokens that both models are sure of."""
    policy = Balanced(8.0, gap=gap, gap_limit=2.3, memory=4.0, hedge=0.01)
    state, fused_, slm_, count = policy.start(unprompted(1)), 0.0, 0.0, 0
    for _ in range(12):
        for llm, slm in [(sure, 0.01), *[(0.999, 0.99)] * easy]:
            rows_ = [torch.tensor([[each, 1 - each]], dtype=torch.float64).log() for each in (llm, slm)]
            fused = law(policy, *rows_, state)
            state = policy.advance(state, torch.tensor([0]), *rows_, fused)
            fused_, slm_, count = fused_ + float(fused[0, 0]), slm_ + math.log(slm), count + 1
            assert fused_ - slm_ <= policy.allowance(count, -slm_) + EXACT


def test_a_prompt_that_makes_the_slm_weak_buys_no_more_than_the_largest_gap() -> None:
    """Forty tokens of which the SLM knows nothing, which the LLM is careful not to be sure of."""
    soup = prompted(torch.full((1, 40), -4.0), torch.full((1, 40), -12.0))
    level, gap, *_ = FOLLOWING.start(soup)
    assert (float(level), float(gap)) == (0.0, FOLLOWING.largest_gap)
    state, taken, secret = FOLLOWING.start(soup), 0.0, (0.99, 0.01)
    llm, slm = (torch.tensor([[each, 1 - each]]).log() for each in secret)
    for _ in range(30):
        fused = law(FOLLOWING, llm, slm, state)
        state = FOLLOWING.advance(state, torch.tensor([0]), llm, slm, fused)
        taken += float(fused[0, 0]) - math.log(0.01)
    assert taken <= FOLLOWING.allowance(30, -30 * math.log(0.01))
    assert float(state[0]) == 2 * FOLLOWING.budget  # and after a few tokens the SLM writes alone
    assert float(fused[0, 0].exp()) == pytest.approx(0.01)


OPENING = replace(FOLLOWING, opening=2.0)


def test_a_sudden_run_has_the_opening_alone() -> None:
    """And what is left of it falls as with a budget of that size, but for the average that rises with it."""
    llm, slm = torch.tensor([[0.99, 0.01]]).log(), torch.tensor([[0.001, 0.999]]).log()
    first = law(OPENING, llm, slm, OPENING.start(unprompted(1)))
    assert float((first - slm).max()) == pytest.approx(math.log((1 - 0.05) * math.e**2 + 0.05), abs=1e-4)
    state = OPENING.advance(OPENING.start(unprompted(1)), torch.tensor([0]), llm, slm, first)
    level = float(state[0])
    assert float(OPENING.limit(state[3])) == pytest.approx(2.0 + level / 16)
    assert level > float(OPENING.limit(state[3]))  # nothing is left after one such token


def test_where_the_llm_is_surer_all_along_the_limit_becomes_the_budget() -> None:
    steady = prompted(torch.full((1, 300), -0.5), torch.full((1, 300), -3.7))
    limits = [float(OPENING.limit(state[3])) for state in OPENING.reading(steady)]
    assert limits[0] == OPENING.opening
    assert limits == sorted(limits)
    assert limits[-1] == OPENING.budget


@pytest.mark.parametrize("option", [{"gap_limit": 1.0}, {"opening": 2.0}, {"opening_in_code": 1.0}])
def test_what_follows_the_text_needs_a_memory(option: dict[str, float]) -> None:
    """Without one `gap_limit` loosened the guarantee for nothing, and an opening was the whole budget."""
    (name,) = option
    words = f"balanced: {name} goes by an average over the text, and with memory = 0 there is none"
    with pytest.raises(ConfigError, match=words):
        Balanced(**option)
    assert vars(Balanced(memory=4.0, **option))[name] == option[name]


CODING = replace(OPENING, opening_in_code=1.0, hedge=0.0)


def test_where_the_last_tokens_are_code_the_opening_is_that_of_code() -> None:
    """In a prompt and in an answer; without the prompt's tokens a text is code once it has shown it."""
    policy = CODING.bind(letters("a="))
    llm, slm = torch.tensor([[0.99, 0.01]]).log(), torch.tensor([[0.01, 0.99]]).log()
    for prompt, opening in (([0, 1, 0, 1, 1], 1.0), ([1, 0, 0, 0, 0, 0], 2.0)):
        scores = torch.full((1, len(prompt)), -1.0)
        state = policy.start(replace(prompted(scores, scores), tokens=torch.tensor([prompt])))
        assert float((law(policy, llm, slm, state) - slm).max()) == pytest.approx(opening, abs=1e-4)
    state = policy.start(unprompted(1))
    assert float((law(policy, llm, slm, state) - slm).max()) == pytest.approx(2.0, abs=1e-4)
    even = torch.tensor([[0.5, 0.5]]).log()
    state = policy.advance(state, torch.tensor([1]), even, even, even)
    assert float((law(policy, llm, slm, state) - slm).max()) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(
    ("text", "code"),
    [(" word", False), ("\n", False), ("\n    ", True), (" =", True), ("),", True), ("  ", False)],
)
def test_signs_of_code(text: str, code: bool) -> None:
    assert is_code(text) is code


@given(opening=NATS, seed=SEEDS)
def test_with_an_opening_no_token_has_more_from_an_equal_state(opening: float, seed: int) -> None:
    plain = replace(FOLLOWING, hedge=0.0)
    state = plain.start(prompted(-rows(seed, size=9).abs(), -rows(seed + 1, size=9).abs()))
    left = (replace(plain, opening=opening).limit(state[3]) - state[0]).clamp(min=0.0)
    assert bool((left <= (plain.limit(state[3]) - state[0]).clamp(min=0.0)).all())


def test_an_llm_that_raises_the_average_first_is_within_the_budget_all_the_same() -> None:
    """Steadily sure for 200 tokens that the SLM finds unlikely, so that the opening is worth nothing; then
    easy tokens, over which the level falls and the average does not; then a secret."""
    policy, secret = replace(OPENING, hedge=0.0), (0.99, 0.01)
    state, taken, costs = policy.start(unprompted(1)), [0.0], []
    for pair in [(0.9, 0.05)] * 200 + [(0.5, 0.5)] * 6 + [secret] * 30:
        llm, slm = (torch.tensor([[each, 1 - each]], dtype=torch.float64).log() for each in pair)
        fused = law(policy, llm, slm, state)
        state = policy.advance(state, torch.tensor([0]), llm, slm, fused)
        cost = (1 + policy.doubt) * float(fused[0, 0]) - float(slm[0, 0]) - policy.largest_gap
        taken.append(max(taken[-1], 0.0) + cost)
        costs.append(float(policy.limit(state[3])))
    assert costs[199] == policy.budget  # it did open
    assert max(taken) <= policy.budget + EXACT


def test_no_budget_is_the_slm_alone() -> None:
    llm, slm = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.2, 0.8]]).log()
    assert torch.equal(Balanced(0.0).fuse(llm, slm, Balanced(0.0).start(unprompted(1))), slm)


def test_a_record_holds_while_no_run_of_it_exceeds_the_budget() -> None:
    policy = Balanced(budget=4.0)
    assert policy.holds(steps((0.9, 0.1), (0.3, 0.2), (0.9, 0.1)))
    assert policy.holds(steps((0.9, 0.1), (0.01, 0.2), (0.9, 0.1), (0.01, 0.2), (0.9, 0.1)))
    assert not policy.holds(steps((0.01, 0.2), (0.9, 0.1), (0.9, 0.1), (0.5, 0.4)))
    assert not policy.holds(steps((0.1, 0.1), (0.001, 0.00001)))  # one token beyond its own ceiling
    assert policy.holds([])


def test_a_number_that_the_prompt_began_goes_on_counting() -> None:
    """In four requests, each with the answers so far in its prompt, 10 of 12 phone numbers came out whole."""
    policy = Balanced(30.0, numbers=5.0).bind(letters("12-a"))
    one, two, joiner, letter = range(4)

    def begun(*prompt: int, llm: float = -0.5, turn: int | None = None) -> float:
        tokens = torch.tensor([prompt])
        scores = torch.full(tokens.shape, llm), torch.full(tokens.shape, -2.5)
        own = None if turn is None else torch.tensor([turn])
        context = Context(*scores, torch.tensor([len(prompt)]), torch.tensor([False]), tokens, own)
        return float(policy.start(context)[-1])

    assert begun(letter, one, two) == pytest.approx(4.0)
    assert begun(one, joiner, two) == pytest.approx(6.0)
    assert begun(one, two, letter) == 0.0
    assert begun(letter, one, two, turn=0) == 0.0  # a user's message ends with it, and an answer begins
    assert begun(one, one, two, turn=1) == pytest.approx(2.0)
    assert begun(letter, joiner) == 0.0  # as in "A:", which is no number yet
    assert begun(letter, joiner, one) == pytest.approx(4.0)
    assert begun(one, two, llm=-3.0) == 0.0


def test_the_context_of_an_answer_has_the_prompt_s_tokens() -> None:
    llm, slm = (ToySource(letters("0123456789 "), seed=seed) for seed in (1, 2))
    with closing(SessionPair(Purifier(llm, slm, Balanced(numbers=2.0)), ["1 2345", "7"])) as pair:
        context = pair.context(greedy=False)
    assert context.tokens is not None
    assert context.tokens.shape == context.llm.shape
    assert context.tokens[0, -4:].tolist() == [2, 3, 4, 5]


@pytest.mark.parametrize("tokens", [[-1, -2], [-50_000, 99], [10**6, 0]])
def test_an_id_that_is_no_token_has_no_sign_of_code(tokens: list[int]) -> None:
    """A prompt's ids that the pair does not share are negative."""
    signs, share = CodeSigns((3, 7)), torch.full((2,), 0.5)
    assert signs.followed(share, torch.tensor(tokens)).tolist() == pytest.approx([0.5 - 0.5 / SPAN] * 2)
    assert signs.followed(share, torch.tensor([3, 7])).tolist() == pytest.approx([0.5 + 0.5 / SPAN] * 2)
