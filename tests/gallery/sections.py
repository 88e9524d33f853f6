"""All cheats of the gallery, by what they are cheats of."""

from tests.gallery import cheats_artifact, cheats_data, cheats_fence, cheats_record, cheats_score, cheats_text, cheats_training

SECTIONS = {
    "the score": cheats_score.CHEATS,
    "data, bytes and time": cheats_data.CHEATS,
    "the artifact": cheats_artifact.CHEATS,
    "a text from elsewhere": cheats_fence.CHEATS,
    "what was recorded": cheats_record.CHEATS,
    "the text": cheats_text.CHEATS,
    "training": cheats_training.CHEATS,
}
