from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Cache, DynamicCache, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from parallax.attention.softmax.sdpa import SdpaSoftmax as PortableAttention
from parallax.config.models.dual_track import DualTrackConfig as ArchitectureConfig
from parallax.model.dual_track import DualTrack as Architecture

_CACHE_FIELD = (
    "cache" if "cache" in {field.name for field in fields(CausalLMOutputWithPast)} else "past_key_values"
)
"""What transformers calls the cache in a model's output, which has changed once."""


class ParallaxConfig(PreTrainedConfig):
    """What config.json says: `model`, the section that the model is built from, and transformers' own keys.

    `num_hidden_layers` counts the layers of the cache: tracks x passes x layers of a track.
    """

    model_type = "parallax"

    def __init__(self, model: dict[str, Any] | None = None, **others: Any) -> None:
        self.model = model
        super().__init__(**others)


class ParallaxForCausalLM(PreTrainedModel, GenerationMixin):
    """The model behind the interface that `generate`, `pipeline` and lm-eval use.

    Dropout, which the training of the original had its own way to draw, is off in every mode.
    """

    config_class = ParallaxConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    _supports_sdpa = True
    _no_split_modules = [Architecture.__name__]
    _tied_weights_keys = {"model.head.weight": "model.embedding.weight"}

    def __init__(self, config: ParallaxConfig) -> None:
        super().__init__(config)
        if config.model is None:
            raise ValueError("config.json has no `model` section, and nothing can be built without it")
        self.model = Architecture(ArchitectureConfig(**config.model), PortableAttention())
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        past_key_values: Cache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        return_dict: bool | None = None,
        **others: Any,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Logits of (B, T) token ids, and the mean loss where `labels` are given.

        Args:
            input_ids: the new tokens.
            attention_mask: (B, S) over all tokens read so far and the new ones, 0 at padding, on either side; or
                (B, 1, T, S) with what each new token may see.
            position_ids: (B, T); counted from each row's first token that is no padding unless given.
            cache: keys and values of the tokens read so far.
            past_key_values: the same, by its earlier name.
            labels: (B, T) the tokens again, -100 where nothing is to be predicted; each is shifted here.
            use_cache: give back a cache; the configuration decides unless given, and training keeps none.
            logits_to_keep: only the last so many places, or the places named; 0: all.
            return_dict: False: a plain tuple.
            others: only read for what this model cannot give.

        Raises:
            ValueError: no `input_ids`, a mask that does not fit, or a wish for states or attentions.
        """
        if input_ids is None or others.get("inputs_embeds") is not None:
            raise ValueError("this model reads input_ids; inputs_embeds cannot be given instead")
        if others.get("output_hidden_states") or others.get("output_attentions"):
            raise ValueError("this model gives logits and a cache, neither hidden states nor attentions")
        cache = past_key_values if cache is None else cache
        if use_cache is None:
            use_cache = bool(getattr(self.config, "use_cache", True)) and not self.training
        if cache is None and use_cache:
            cache = DynamicCache()
        view = CacheView(cache, self.model.config.num_loops, self.model.config.layers_per_track)
        view.look(input_ids, attention_mask, position_ids)
        if isinstance(logits_to_keep, int) and logits_to_keep == 1:
            last = torch.full_like(input_ids[:, 0], input_ids.shape[1] - 1)
            logits = self.model(input_ids, cache=view, last=last)[:, None]
        else:
            kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            logits = self.model(input_ids, cache=view)[:, kept]
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=logits.shape[-1])
        held: dict[str, Any] = {_CACHE_FIELD: cache if use_cache else None}
        output = CausalLMOutputWithPast(loss=loss, logits=logits, **held)
        return output.to_tuple() if return_dict is False else output

    def get_input_embeddings(self) -> nn.Module:
        """The token embedding."""
        return self.model.embedding

    def get_output_embeddings(self) -> nn.Module:
        """The head, whose weight is (V, D)."""
        return self.model.head

    def _init_weights(self, module: nn.Module) -> None:
        """For a model that begins anew; what is read from a file is left alone."""
        if module is self.model.head:
            for weight in module.parameters():
                nn.init.normal_(weight, std=0.02)
            return
        super()._init_weights(module)
        for name, parameter in module.named_parameters(recurse=False):
            if isinstance(module, nn.ParameterList):
                nn.init.zeros_(parameter)  # biases
            elif name not in ("weight", "bias"):
                nn.init.normal_(parameter, std=1.0 if name == "frequencies" else 0.02)


class CacheView:
    """A cache of transformers as the model sees one, or none: then keys and values pass through.

    Layer (track * R + pass) * L + layer of it is the slot of a layer in a pass of a track.
    """

    def __init__(self, cache: Cache | None, num_passes: int, num_layers: int) -> None:
        self.cache = cache
        self._num_passes, self._num_layers = num_passes, num_layers

    def look(self, tokens: Tensor, attention_mask: Tensor | None, position_ids: Tensor | None) -> None:
        """Settles where the new tokens (B, T) stand and what they may see; see `ParallaxForCausalLM.forward`."""
        past, length = (0, tokens.shape[1]) if self.cache is None else self._lengths(tokens.shape[1])
        places = torch.arange(past, past + tokens.shape[1], device=tokens.device)
        self._positions, self._mask = places[None], None
        is_full = length == past + len(places)
        if attention_mask is not None and attention_mask.dim() == 4:
            allowed = attention_mask if attention_mask.dtype == torch.bool else attention_mask == 0
            self._mask = _seen(places, length) & allowed if is_full else allowed
        elif attention_mask is not None and not bool(attention_mask.all()):
            expected = (len(tokens), past + len(places))
            if attention_mask.shape != expected:
                raise ValueError(
                    f"attention_mask is {tuple(attention_mask.shape)}; expected {expected}: all tokens read so "
                    "far and the new ones"
                )
            real = attention_mask.bool()
            self._positions = (real.cumsum(1) - 1).clamp(min=0)[:, past:]
            held = F.pad(real, (0, length - real.shape[1]))[:, None, None]
            self._mask = _seen(places, length) & held
        elif not is_full:
            self._mask = _seen(places, length).expand(len(tokens), -1, -1, -1)
        if self._mask is not None:
            # Padding sees itself: what nobody reads must not become NaN, which every sum would spread.
            itself = torch.arange(self._mask.shape[-1], device=tokens.device) == places[:, None]
            self._mask = self._mask | itself
        if position_ids is not None:
            self._positions = position_ids

    def _lengths(self, num_tokens: int) -> tuple[int, int]:
        """Tokens read so far, and keys that a query is given, which in a cache of fixed size are all there is."""
        assert self.cache is not None
        return self.cache.get_seq_length(), self.cache.get_mask_sizes(num_tokens, 0)[0]

    def begin(self, num_tokens: int) -> tuple[Tensor, Tensor | None]:
        """Positions (B or 1, T) of the new tokens, and a mask (B, 1, T, S) or None: causal."""
        return self._positions, self._mask

    def slots(self, track: int, loop: int) -> Sequence["CacheViewSlot"]:
        """The slots of one track's pass, one per layer."""
        first = (track * self._num_passes + loop) * self._num_layers
        return [CacheViewSlot(self.cache, first + layer) for layer in range(self._num_layers)]

    def finish(self) -> None:
        """The cache counts for itself."""


@dataclass(frozen=True)
class CacheViewSlot:
    """The part of a cache that one attention layer in one pass of one track sees."""

    cache: Cache | None
    layer: int

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Writes the new tokens' (B, G, T, E) and returns all (B, G, S, E), oldest first."""
        if self.cache is None:
            return k, v
        keys, values = self.cache.update(k, v, self.layer)
        return keys, values


def _seen(places: Tensor, length: int) -> Tensor:
    """(1, 1, T, S) boolean: which of S keys come no later than the queries at these places."""
    return (torch.arange(length, device=places.device) <= places[:, None])[None, None]
