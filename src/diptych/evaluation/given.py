"""The pictures and their features, as each contender takes them: read and computed once."""

from dataclasses import replace

import torch

from diptych.backbones.feature_choice import FeatureChoice
from diptych.config import to_dict
from diptych.errors import ConfigError, RunFolderError
from diptych.evaluation.cache import FeatureCache, digest_of
from diptych.evaluation.contenders import Contender
from diptych.evaluation.features import Features, pixel_features
from diptych.evaluation.pictures import Labelled, Sources, read_labelled
from diptych.progress import Terminal


class Given:
    """What an evaluation rests on.

    Args:
        sources: where the pictures come from.
        cache: where features are kept.
        choice: what is taken from a backbone.
        terminal: where to speak.
    """

    def __init__(self, sources: Sources, cache: FeatureCache, choice: FeatureChoice, terminal: Terminal) -> None:
        self._sources, self._cache, self._choice, self._terminal = sources, cache, choice, terminal
        self._read: dict[object, Labelled] = {}
        self._digests: dict[object, tuple[str, str]] = {}

    def pictures(self, contender: Contender) -> Labelled:
        """Return the pictures in the size and type of a contender; the first one asked for decides which they are.

        Raises:
            UserError: they cannot be read, or others of them than those of the first.
        """
        made = contender.preprocessing
        key = (made.image_size, made.pixels)
        if key not in self._read:
            found = read_labelled(self._sources, made.image_size, made.pixels, self._terminal)
            first = next(iter(self._read.values()), found)
            for ours, theirs in ((first.train, found.train), (first.test, found.test)):
                if not torch.equal(ours.source_indices, theirs.source_indices):
                    raise ConfigError(
                        f"--against {contender.key}: it takes {made.pixels} of {made.image_size} px, and not the same "
                        "pictures can be read as such: leave it out, or remove what `diptych audit` lists as broken"
                    )
            self._read[key] = found
            self._digests[key] = (digest_of(found.train.images), digest_of(found.test.images))
        return self._read[key]

    def features(self, contender: Contender) -> tuple[Features, Features]:
        """Return the features of the training and the test pictures, computed or read again.

        Raises:
            ConfigError: the network has no such features.
            RunFolderError: some are not finite: a probe would still answer, and mean nothing.
        """
        pictures, backbone, made = self.pictures(contender), contender.backbone, contender.preprocessing
        parts = ((pictures.train.images, pictures.train_labels), (pictures.test.images, pictures.test_labels))
        if backbone is None:
            train, test = (pixel_features(images, labels) for images, labels in parts)
            return replace(train, groups=pictures.train_groups), test
        found = []
        for (images, labels), digest in zip(parts, self._digests[made.image_size, made.pixels], strict=True):
            key = (contender.weights_hash, to_dict(made), to_dict(self._choice), digest, str(backbone.device))
            try:
                values = self._cache.get(key, lambda: backbone.embed(images, features=self._choice).clone())  # noqa: B023
            except ConfigError as error:
                raise ConfigError(f"{contender.name}: {error}") from error
            if not values.isfinite().all():
                raise RunFolderError(
                    f"the features of {contender.name} are not finite: its training diverged; pretrain with a lower "
                    "--lr"
                )
            found.append(Features(values, labels))
        return replace(found[0], groups=pictures.train_groups), found[1]
