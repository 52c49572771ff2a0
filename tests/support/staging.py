"""Stages of a run with other actors than usual. It is apart from these, so that workers do not import it."""

from functools import partial

from pipeline.cluster import stages
from pipeline.cluster.stages import Stages
from tests.support import tracing


def with_actors(decoder: type, predictor: type) -> Stages:
    return Stages(images=partial(stages.images, actor=decoder), scored=partial(stages.scored, actor=predictor))


TRACED = with_actors(tracing.TracedDecoder, tracing.TracedPredictor)
