# SPDX-License-Identifier: Apache-2.0
"""COCO's average precision of collected results, through pycocotools.

Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014; the rules are those of
cocodataset.org/#detection-eval and #keypoints-eval: IoU (OKS for keypoints) thresholds 0.50 to
0.95 in steps of 0.05, at most 100 boxes or masks and 20 poses per image.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from bmp_ros.evaluation.ground_truth import truth_for

Result = Mapping[str, Any]

_KINDS = {"boxes": "bbox", "masks": "segm", "keypoints": "keypoints"}
_FALSE_POSITIVE_IOU = 0.5


@dataclass(frozen=True)
class Score:
    """Average precision and recall of one kind of result; None where there are no people to find.

    ap, ar: mean over the thresholds 0.50, 0.55 … 0.95. ap50, ap75: at 0.50 and 0.75.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    ar: float | None


@dataclass(frozen=True)
class ResultScores:
    """Scores of the kinds of results that were given, None for the others.

    false_positives: boxes that match no person (see `score_results`), None without boxes.
    """

    boxes: Score | None = None
    masks: Score | None = None
    keypoints: Score | None = None
    false_positives: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON."""
        return asdict(self)


@dataclass
class ScoreDetails:
    """What there is to say beyond averages; filled by `score_results`.

    thresholds: (T,) of IoU or OKS. curves: (T, 101) precision at recall 0.00 to 1.00 of each kind
    of result, below 0 where nothing is known. mistakes: of each image, people
    whom no box above the score threshold matches at IoU 0.5, and such boxes that match no person.
    """

    thresholds: np.ndarray = field(default_factory=lambda: np.zeros(0))
    curves: dict[str, np.ndarray] = field(default_factory=dict)
    mistakes: dict[Any, tuple[int, int]] = field(default_factory=dict)


def score_results(
    truth: Mapping[str, Any],
    *,
    boxes: Sequence[Result] | None = None,
    masks: Sequence[Result] | None = None,
    keypoints: Sequence[Result] | None = None,
    score_threshold: float = 0.0,
    details: ScoreDetails | None = None,
) -> ResultScores:
    """Score collected results against ground truth.

    truth: a document in COCO's format: ``images``, ``annotations``, ``categories`` (see
    `bmp_ros.evaluation.ground_truth` for what may be missing). It is not changed.
    boxes: ``{"image_id", "bbox": [x, y, width, height], "score"}`` per person, edges in continuous
    pixels. masks: ``{"image_id", "segmentation": RLE, "score"}`` (see
    `bmp_ros.evaluation.coco_results`). keypoints: ``{"image_id", "keypoints": [x, y, score, …],
    "score"}``, 17 in COCO's order, pixel centres at whole numbers. An empty list scores 0, what is
    None is not scored.
    score_threshold: boxes with a score above it that match no person at IoU 0.5 count as false
    positives; what lies on a crowd region counts neither way.

    Raises ValueError for results of images that the truth does not have and for a truth without
    people's category, ModuleNotFoundError without pycocotools.
    """
    import_pycocotools()
    scores: dict[str, Score] = {}
    false_positives = None
    for kind, results in (("boxes", boxes), ("masks", masks), ("keypoints", keypoints)):
        if results is None:
            continue
        evaluation = _evaluated(truth_for(kind, truth), results, _KINDS[kind])
        scores[kind] = _score(evaluation)
        if details is not None:
            details.thresholds = evaluation.params.iouThrs
            details.curves[kind] = evaluation.eval["precision"][:, :, 0, 0, -1]
        if kind == "boxes":
            mistakes = _mistakes(evaluation, score_threshold)
            false_positives = sum(false for _, false in mistakes.values())
            if details is not None:
                details.mistakes = mistakes
    return ResultScores(**scores, false_positives=false_positives)


def import_pycocotools() -> tuple[Any, Any]:
    """Its classes COCO and COCOeval. Raises ModuleNotFoundError that names what to install."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"scores need pycocotools: `pip install -r requirements/evaluate.txt` ({error})"
        ) from error
    return COCO, COCOeval


def _evaluated(truth: dict[str, Any], results: Sequence[Result], iou_type: str) -> Any:
    """pycocotools' COCOeval after `accumulate`."""
    COCO, COCOeval = import_pycocotools()  # noqa: N806
    known = {image["id"] for image in truth["images"]}
    strangers = sorted({str(r["image_id"]) for r in results if r["image_id"] not in known})
    if strangers:
        raise ValueError(
            f"results of images that the ground truth does not have: {', '.join(strangers[:5])}"
            f"{' …' if len(strangers) > 5 else ''}; score them against their own annotations"
        )
    answers = [{**result, "category_id": 1} for result in results]
    with _silence():
        expected = COCO()
        expected.dataset = truth
        expected.createIndex()
        if answers:
            given = expected.loadRes(answers)
        else:  # loadRes looks at the first result
            given = COCO()
            given.dataset = {**truth, "annotations": []}
            given.createIndex()
        evaluation = COCOeval(expected, given, iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _score(evaluation: Any) -> Score:
    """Means over COCOeval's tables, as its `summarize` takes them for all areas."""
    precision = evaluation.eval["precision"][:, :, 0, 0, -1]  # (thresholds, recalls)
    recall = evaluation.eval["recall"][:, 0, 0, -1]
    thresholds = evaluation.params.iouThrs

    def mean(values: np.ndarray) -> float | None:
        known = values[values > -1]
        # Rounded, since pycocotools adds the smallest of numbers to denominators: 1 is 1 here.
        return round(float(known.mean()), 12) if known.size else None

    return Score(
        ap=mean(precision),
        ap50=mean(precision[np.isclose(thresholds, 0.50)]),
        ap75=mean(precision[np.isclose(thresholds, 0.75)]),
        ar=mean(recall),
    )


def _mistakes(evaluation: Any, score_threshold: float) -> dict[Any, tuple[int, int]]:
    """People missed, and boxes that are no person, of every image (see `ScoreDetails`)."""
    at = int(np.flatnonzero(np.isclose(evaluation.params.iouThrs, _FALSE_POSITIVE_IOU))[0])
    everything = evaluation.params.areaRng[0]
    found = {}
    for image in evaluation.evalImgs:
        if image is None or image["aRng"] != everything:
            continue
        counts = np.asarray(image["dtScores"]) > score_threshold
        alone = (image["dtMatches"][at] == 0) & ~image["dtIgnore"][at].astype(bool)
        # A person counts as found by a box above the threshold only, as in the images.
        matched = image["gtMatches"][at]
        kept = {int(name) for name, keep in zip(image["dtIds"], counts, strict=True) if keep}
        missed = sum(
            not ignored and int(match) not in kept
            for match, ignored in zip(matched, image["gtIgnore"], strict=True)
        )
        found[image["image_id"]] = int(missed), int((alone & counts).sum())
    return found


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """pycocotools tells stdout about every step."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
