"""The stage as a whole, on a model that answers from a table."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from qtool.errors import MismatchError, StoreError
from qtool.evaluate import results, stage
from qtool.evaluate.asking.noise_floor import NoiseFloor
from qtool.evaluate.asking.questions import Asked
from qtool.evaluate.asking.subject import Settings
from qtool.evaluate.stage import evaluate_asked
from qtool.progress import Silent
from qtool.records.evaluation import Comparison, Evaluation, Interval, ItemResult
from qtool.records.task import Item, TaskSpec
from qtool.store.codec import read_json
from tests.evaluate.workshop import Workshop

TASK = TaskSpec(
    name="sums", version=1, description="", licence="CC0-1.0", prompt="Question: {question}\nAnswer:",
    scorer="generation", metric="numeric", extract="last_number", margin_points=2.0, items=40, seed=1,
    max_new_tokens=12, slices=("parity",),
)  # fmt: skip


def sums(count: int) -> tuple[Item, ...]:
    return tuple(
        Item(
            id=f"{n}+1", fields=(("question", f"{n}+1?"),), answer=f" {n + 1}", target=str(n + 1),
            slices=(("parity", "even" if n % 2 == 0 else "odd"),),
        )
        for n in range(count)
    )  # fmt: skip


def right(prompt: str) -> str:
    number = int(prompt.split("Question: ")[1].split("+")[0])
    return f" {number + 1}"


def wrong_when(divisible_by: int):
    def reply(prompt: str) -> str:
        number = int(prompt.split("Question: ")[1].split("+")[0])
        return f" {number + (3 if number % divisible_by == 0 else 1)}"

    return reply


def run(workshop: Workshop, folder: Path, output: Path, *, count: int = 40, baseline: Path | None = None, **changes):
    asked = Asked(TASK, sums(count), changes.pop("margin", 2.0))
    return evaluate_asked(
        folder,
        (asked,),
        output,
        baseline=baseline,
        progress=Silent(),
        settings=Settings(**changes),
        opener=workshop.open,
    )[0]


def test_a_perfect_model_scores_one_with_an_interval_that_is_not_empty(workshop: Workshop, tmp_path: Path) -> None:
    found = run(workshop, workshop.model("baseline", right), tmp_path / "e")
    assert found.score.value == 1.0
    assert found.score.interval.low < 1.0
    assert found.score.items == 40
    assert [slice.value for slice in found.slices] == ["even", "odd"]
    rows = results.read_items(tmp_path / "e" / "sums.items.jsonl")
    assert [row.id for row in rows] == [item.id for item in sums(40)]
    assert all(row.margins and row.prompt_digest and row.run_digest for row in rows)


def test_the_noise_floor_of_a_steady_model_is_zero_and_was_measured(workshop: Workshop, tmp_path: Path) -> None:
    baseline, output = workshop.model("baseline", right), tmp_path / "baseline"
    run(workshop, baseline, output)
    found = run(workshop, workshop.model("worse", wrong_when(4), scheme="w4a16"), tmp_path / "v", baseline=output)
    assert found.churn is not None
    assert (found.churn.floor_changed, found.churn.floor_items) == (0, 40)
    assert found.churn.floor_interval is not None
    multiple = found.churn.multiple_of_floor()
    assert multiple is not None
    assert multiple[0] is None, "nothing was divided by zero"
    assert multiple[1] == pytest.approx(0.25 / found.churn.floor_interval.high)


def test_a_floor_is_cut_short_where_it_would_take_longer_than_its_share(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "_LEAST_FLOOR_SECONDS", 0.0)
    run(workshop, workshop.model("baseline", right), tmp_path / "e", count=120, floor_share=1e-9)
    found = read_json(NoiseFloor, tmp_path / "e" / "sums.floor.json")
    assert (found.items, found.items_alone) == (10, 1)  # one batch, a twelfth of the items, and one item alone


def test_a_resumed_run_with_nothing_left_still_measures_the_floor(workshop: Workshop, tmp_path: Path) -> None:
    folder = workshop.model("baseline", right)
    run(workshop, folder, tmp_path / "e", floor_share=0.0)
    assert not (tmp_path / "e" / "sums.floor.json").exists()
    run(workshop, folder, tmp_path / "e")
    assert read_json(NoiseFloor, tmp_path / "e" / "sums.floor.json").items == 40
    opened = len(workshop.engines)
    run(workshop, folder, tmp_path / "e")
    assert len(workshop.engines) == opened, "what was measured is not measured again"


def test_a_model_whose_answers_hang_on_what_else_is_in_flight_has_a_floor(workshop: Workshop, tmp_path: Path) -> None:
    def moody(prompt: str) -> str:
        together = any(len(engine._running) > 2 for engine in workshop.engines)
        return right(prompt) if together else " 0"

    run(workshop, workshop.model("baseline", moody), tmp_path / "e", forcing=False, floor_share=1000.0)
    assert read_json(NoiseFloor, tmp_path / "e" / "sums.floor.json").changed_alone > 30


def test_items_answered_as_expected_are_decided_without_generating_and_say_so(
    workshop: Workshop, tmp_path: Path
) -> None:
    folder = workshop.model("baseline", wrong_when(7))
    found = run(workshop, folder, tmp_path / "a", count=400, floor_share=0.0)
    plain = run(workshop, folder, tmp_path / "b", count=400, floor_share=0.0, forcing=False)
    forced, generated = (results.read_items(tmp_path / name / "sums.items.jsonl") for name in "ab")
    assert [(row.id, row.output, row.output_ids, row.margins, row.score, row.finish) for row in forced] == [
        (row.id, row.output, row.output_ids, row.margins, row.score, row.finish) for row in generated
    ]
    assert found.score == plain.score
    assert found.run_digest == plain.run_digest
    decided = [row for row in forced if row.decided_by]
    assert all(row.decided_by == "teacher forcing" and row.score == 1.0 for row in decided)
    assert len(decided) > 250
    assert len(workshop.engines[0].asked) == 400 - len(decided), "a wrong answer is generated: what it is matters"
    assert not [row for row in generated if row.decided_by]


def test_near_ties_are_generated(workshop: Workshop, tmp_path: Path) -> None:
    workshop.options["margin"] = 0.05
    run(workshop, workshop.model("baseline", right), tmp_path / "e", count=300, floor_share=0.0)
    assert len(workshop.engines[0].asked) == 300


def test_a_model_that_words_its_answers_otherwise_is_soon_left_to_generate(workshop: Workshop, tmp_path: Path) -> None:
    def talks(prompt: str) -> str:
        return f" It is{right(prompt)}"

    run(workshop, workshop.model("baseline", talks), tmp_path / "e", count=800, floor_share=0.0)
    engine = workshop.engines[0]
    assert len(engine.asked) == 800
    assert len(engine.scored) <= 97, "one group, one look for the id that ends, and 32 answers that measure near ties"


def test_a_task_that_samples_has_a_floor_of_another_seed_and_is_never_forced(
    workshop: Workshop, tmp_path: Path
) -> None:
    task = replace(TASK, temperature=0.7)
    asked = Asked(task, sums(100), 2.0)
    evaluate_asked(
        workshop.model("baseline", right), (asked,), tmp_path / "e", baseline=None, progress=Silent(),
        settings=Settings(), opener=workshop.open,
    )  # fmt: skip
    assert not workshop.engines[0].scored[: -2 * 64], "scoring is for the divergence alone"
    assert read_json(NoiseFloor, tmp_path / "e" / "sums.floor.json").changed_other_seed == 0


def test_a_model_that_loses_a_quarter_fails_and_the_ledger_says_where(workshop: Workshop, tmp_path: Path) -> None:
    run(workshop, workshop.model("baseline", right), tmp_path / "b", count=400)
    worse = workshop.model("worse", wrong_when(4), scheme="w4a16")
    found = run(workshop, worse, tmp_path / "v", count=400, baseline=tmp_path / "b")
    assert found.comparison is not None
    assert found.churn is not None
    assert found.comparison.verdict == "FAIL"
    assert found.comparison.difference == -0.25
    assert found.comparison.p_worse < 1e-20
    assert (found.churn.harmful, found.churn.beneficial) == (100, 0)
    assert [each.verdict for each in found.slices] == ["FAIL", "PASS"]
    flips = [json.loads(line) for line in (tmp_path / "v" / "sums.churn.jsonl").read_text().splitlines()]
    assert len(flips) == 100
    assert flips[0]["baseline_output"] == " 1"
    assert flips[0]["variant_output"] == " 3"
    assert flips[0]["token"] == 1
    assert flips[0]["baseline_margin"] == 2.5


def test_too_few_items_are_undecided_and_the_missing_number_is_named(workshop: Workshop, tmp_path: Path) -> None:
    run(workshop, workshop.model("baseline", right), tmp_path / "b")
    found = run(workshop, workshop.model("v", wrong_when(39)), tmp_path / "v", baseline=tmp_path / "b")
    assert found.comparison is not None
    assert found.comparison.verdict == "UNDECIDED"
    assert "items do not decide" in found.comparison.reason


def test_what_was_answered_is_not_asked_again(workshop: Workshop, tmp_path: Path) -> None:
    folder = workshop.model("baseline", right)
    first = run(workshop, folder, tmp_path / "e", count=30, floor_share=0.0)
    second = run(workshop, folder, tmp_path / "e", count=30, floor_share=0.0)
    assert len(workshop.engines) == 1, "nothing to ask, so no model was opened"
    assert first == second
    run(workshop, folder, tmp_path / "e", count=40, floor_share=0.0)
    assert len(workshop.engines[1].asked) == 10


def test_a_killed_run_goes_on_where_it_stopped(workshop: Workshop, tmp_path: Path) -> None:
    folder, output = workshop.model("baseline", right), tmp_path / "e"
    run(workshop, folder, output, floor_share=0.0)
    lines = results.items_path(output, "sums").read_text().splitlines(keepends=True)
    results.manifest_path(output, "sums").unlink()
    results.items_path(output, "sums").unlink()
    results.journal_path(output, "sums").write_text("".join(lines[:25]) + lines[25][:40])  # the last line is torn
    run(workshop, folder, output, floor_share=0.0)
    assert len(workshop.engines[1].asked) == 15
    assert results.items_path(output, "sums").read_text().count("\n") == 40
    assert not results.journal_path(output, "sums").exists()


def test_another_model_or_another_wording_is_asked_anew(workshop: Workshop, tmp_path: Path) -> None:
    run(workshop, workshop.model("baseline", right), tmp_path / "e", floor_share=0.0)
    run(workshop, workshop.model("other", right), tmp_path / "e", floor_share=0.0)
    assert len(workshop.engines[1].asked) == 40


def test_items_are_in_flight_together_and_their_number_changes_nothing(workshop: Workshop, tmp_path: Path) -> None:
    folder = workshop.model("baseline", wrong_when(7))
    together = run(workshop, folder, tmp_path / "a", in_flight=16, floor_share=0.0)
    alone = run(workshop, folder, tmp_path / "b", in_flight=1, floor_share=0.0)
    assert [engine.most_running for engine in workshop.engines] == [16, 1]
    assert together.score == alone.score
    outputs = [[row.output for row in results.read_items(tmp_path / x / "sums.items.jsonl")] for x in "ab"]
    assert outputs[0] == outputs[1]


def test_a_baseline_with_fewer_items_is_refused_before_a_model_is_opened(workshop: Workshop, tmp_path: Path) -> None:
    run(workshop, workshop.model("baseline", right), tmp_path / "b", count=10)
    opened = len(workshop.engines)
    with pytest.raises(MismatchError, match="30 of the 40"):
        run(workshop, workshop.model("v", right), tmp_path / "v", baseline=tmp_path / "b")
    assert len(workshop.engines) == opened


def test_a_baseline_with_another_tokenizer_is_refused(workshop: Workshop, tmp_path: Path) -> None:
    run(workshop, workshop.model("baseline", right), tmp_path / "b")
    with pytest.raises(MismatchError, match="another tokenizer"):
        run(workshop, workshop.model("v", right, tokenizer="syllables"), tmp_path / "v", baseline=tmp_path / "b")


def test_a_baseline_that_was_never_finished_is_refused(workshop: Workshop, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no finished evaluation of sums"):
        run(workshop, workshop.model("v", right), tmp_path / "v", baseline=tmp_path / "b")


def test_empty_looping_truncated_and_unparsable_answers_are_counted_apart(workshop: Workshop, tmp_path: Path) -> None:
    replies = {0: "", 1: " 7 7 7 7 7 7 7 7", 2: " seventeen and a half", 3: " none"}

    def odd(prompt: str) -> str:
        number = int(prompt.split("Question: ")[1].split("+")[0])
        return replies.get(number, right(prompt))

    faults = run(workshop, workshop.model("odd", odd), tmp_path / "e").faults
    assert (faults.empty, faults.looping, faults.truncated, faults.unparsable) == (1, 1, 1, 1)


def test_a_prompt_longer_than_the_context_loses_its_beginning_and_is_counted(
    workshop: Workshop, tmp_path: Path
) -> None:
    workshop.options = {"context_tokens": 24}
    found = run(workshop, workshop.model("short", lambda prompt: " 2"), tmp_path / "e")
    assert found.faults.prompt_cut == 40
    assert workshop.engines[0].asked[0].endswith("Answer:")


def test_chat_puts_the_question_into_the_models_own_template(workshop: Workshop, tmp_path: Path) -> None:
    run(workshop, workshop.model("talker", lambda prompt: " 1"), tmp_path / "e", chat=True)
    assert workshop.engines[0].asked[0].startswith("<user>Question: 0+1?")


def test_the_engine_is_closed_whatever_happens(workshop: Workshop, tmp_path: Path) -> None:
    def fails(prompt: str) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(workshop, workshop.model("stopped", fails), tmp_path / "e")
    assert workshop.engines[0].closed


def test_the_manifest_reads_back_as_the_same_record(workshop: Workshop, tmp_path: Path) -> None:
    from qtool.store.codec import read_json

    found = run(workshop, workshop.model("baseline", right), tmp_path / "e")
    assert read_json(Evaluation, tmp_path / "e" / "sums.json") == found


def test_items_that_do_not_belong_to_the_manifest_are_not_taken_for_a_baseline(
    workshop: Workshop, tmp_path: Path
) -> None:
    run(workshop, workshop.model("baseline", right), tmp_path / "b")
    path = results.items_path(tmp_path / "b", "sums")
    whole = path.read_text()
    variant = workshop.model("v", right)
    path.write_text("".join(whole.splitlines(keepends=True)[:-1]))
    with pytest.raises(StoreError, match="does not belong"):
        run(workshop, variant, tmp_path / "v", baseline=tmp_path / "b")
    path.write_text(whole + "{torn")
    with pytest.raises(StoreError, match=r"jsonl:41: not a line"):
        run(workshop, variant, tmp_path / "v", baseline=tmp_path / "b")
    path.write_text(whole)
    assert run(workshop, variant, tmp_path / "v", baseline=tmp_path / "b").comparison is not None


def test_two_evaluations_into_one_folder_at_once_the_second_is_refused(workshop: Workshop, tmp_path: Path) -> None:
    from qtool.store.run_directory import locked

    with locked(tmp_path / "e" / ".lock", holds="e"), pytest.raises(StoreError, match="another qtool process"):
        run(workshop, workshop.model("baseline", right), tmp_path / "e")


def test_items_that_share_a_template_are_counted_as_clusters(workshop: Workshop, tmp_path: Path) -> None:
    def compared(task: TaskSpec, output: Path) -> Comparison:
        asked = (Asked(task, sums(400), 2.0),)
        base, worse = workshop.model("baseline", right), workshop.model("worse", wrong_when(100))
        for folder, where, baseline in ((base, output / "b", None), (worse, output / "v", output / "b")):
            found = evaluate_asked(
                folder, asked, where, baseline=baseline, progress=Silent(), settings=Settings(), opener=workshop.open
            )[0]
        assert found.comparison is not None
        return found.comparison

    alone = compared(TASK, tmp_path / "alone")
    clustered = compared(replace(TASK, cluster="parity"), tmp_path / "clustered")
    assert (alone.clusters, clustered.clusters) == (None, 2)
    assert clustered.interval.low < alone.interval.low


def test_a_task_that_the_base_cannot_do_certifies_nothing(workshop: Workshop, tmp_path: Path) -> None:
    run(workshop, workshop.model("baseline", lambda prompt: " nothing"), tmp_path / "b", count=300)
    wrecked = workshop.model("w4", lambda prompt: " wreckage", scheme="w4a16")
    found = run(workshop, wrecked, tmp_path / "w4", count=300, baseline=tmp_path / "b", margin=2.0)
    assert found.comparison is not None
    assert found.comparison.verdict == "UNDECIDED"
    assert found.comparison.reason.startswith("the base cannot do this task")
    assert (found.comparison.items_to_decide, found.comparison.base_fails) == (None, True)


def test_a_base_that_only_guesses_certifies_nothing_and_one_that_does_better_does() -> None:
    from qtool.evaluate import base_check
    from qtool.evaluate.metrics import load_metric

    task = replace(TASK, scorer="choice", metric="exact", extract="text")
    items = tuple(Item(f"{n}", (), " a", "a", choices=("a", "b")) for n in range(100))
    assert base_check.chance_of(task, items) == 0.5
    passed = Comparison("baseline", 0.0, Interval(-0.01, 0.01), 0.02, "PASS", "", 0.5, None)
    for right, verdict in ((55, "UNDECIDED"), (70, "PASS")):
        rows = [item_row(str(n), float(n < right)) for n in range(100)]
        checked = base_check.checked(passed, "exact", load_metric("exact"), rows, chance=0.5)
        assert checked.verdict == verdict


def item_row(name: str, score: float) -> ItemResult:
    return ItemResult(name, "p", "o", "o", "t", score, "stop", 1, 1, 1.0)
