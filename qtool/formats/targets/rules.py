"""The table: one row for each thing a serving program is known to refuse, misread or run slowly, with its source.

A row is written only where the source says it. What no row mentions is not known to work.
"""

from dataclasses import dataclass

from qtool.records.target_lint import Consequence

TARGETS = ("vllm", "sglang", "transformers", "llama.cpp", "gptqmodel")


@dataclass(frozen=True, slots=True)
class Where:
    """What a rule objects to: layers that meet every condition that is set, of checkpoints that do; with `whole`, the
    checkpoint itself.

    `not_multiples_of` is (rows, columns): one of the two is no multiple. `partial_group` is a last group that is cut
    short. `fused_skipped` are the layers of a merged matrix (q, k, v; gate, up) of which only some are quantized,
    `fused_unlike` those of one that are all quantized, by different schemes. `below` and `at_least` are compute
    capabilities.
    """

    formats: tuple[str, ...] = ()
    other_than_formats: tuple[str, ...] = ()
    model_types: tuple[str, ...] = ()
    whole: bool = False
    version_1: bool = False
    stored_dequantize: bool | None = None
    cache_unlike_float8: bool = False
    numbers: tuple[str, ...] = ()
    symmetric: bool | None = None
    rounds_inputs: bool | None = None
    bits_other_than: tuple[int, ...] = ()
    groups_other_than: tuple[int, ...] = ()
    not_multiples_of: tuple[int, int] | None = None
    partial_group: bool = False
    head: bool = False
    expert: bool = False
    leaves: tuple[str, ...] = ()
    fused_skipped: bool = False
    fused_unlike: bool = False
    experts_unlike: bool = False
    below: tuple[int, int] | None = None
    at_least: tuple[int, int] | None = None

    def speaks_of(self, stored_format: str) -> bool:
        """Whether checkpoints of this format are meant at all."""
        return stored_format not in self.other_than_formats and (not self.formats or stored_format in self.formats)

    @property
    def asks_gpu(self) -> bool:
        """Whether the rule can only be checked for a GPU."""
        return self.below is not None or self.at_least is not None


@dataclass(frozen=True, slots=True)
class Rule:
    """One row: `version` is what was read, `source` where."""

    name: str
    target: str
    consequence: Consequence
    where: Where
    explanation: str
    version: str
    source: str


_VLLM_DOCS = "https://docs.vllm.ai/en"
_VLLM_CODE = "https://github.com/vllm-project/vllm/blob"
_VLLM_MARLIN = f"{_VLLM_CODE}/007d50058a06/vllm/model_executor/layers/quantization/utils/marlin_utils.py"
_VLLM_TENSORS = (
    f"{_VLLM_CODE}/004dadbe4ed2/vllm/model_executor/layers/quantization/compressed_tensors/compressed_tensors.py"
)
_SGLANG_CODE = "https://github.com/sgl-project/sglang/blob"
_SGLANG_GPTQ = f"{_SGLANG_CODE}/006d09616c51/python/sglang/srt/layers/quantization/gptq.py"
_VLLM_FUSED = f"{_VLLM_CODE}/008014e8503b/vllm/model_executor/layers/quantization/compressed_tensors/utils.py"
_SGLANG_FUSED = f"{_SGLANG_CODE}/06b5b1906a85/python/sglang/srt/layers/quantization/compressed_tensors/utils.py"
_FIRST_PART = (
    "q, k and v, and gate and up, are merged, and the merged matrix takes the scheme of its first part: the others do "
    "not fit it, or are read by it. Give all parts of one matrix the same scheme."
)
_GPTQMODEL_MARLIN = "https://github.com/ModelCloud/GPTQModel/blob/00a2ed24671f/gptqmodel/nn_modules/qlinear/marlin.py"
_QUANTIZERS = "transformers/quantizers"
_FORMATS_OF_INTS = ("compressed-tensors", "gptq")
_MARLIN_GROUPS = (-1, 32, 64, 128)
_VERSION_1 = (
    "GPTQ version 1 stores each zero point less one, and readers differ on what a stored 15 (or 255) means: weights "
    "may be off by whole steps. Write it symmetric, or as gptq_v2."
)
_AUTOGPTQ = "https://github.com/AutoGPTQ/AutoGPTQ/blob/9f7d3707/auto_gptq/nn_modules/qlinear/qlinear_cuda_old.py"
_VERSION_1_WHERE = Where(formats=("gptq",), version_1=True, symmetric=False)

RULES: tuple[Rule, ...] = (
    Rule(
        "fused-skipped",
        "vllm",
        "will not load",
        Where(formats=_FORMATS_OF_INTS, fused_skipped=True),
        "vLLM merges q, k and v, and gate and up, and stops where only some of the parts are quantized. Quantize all "
        "parts of one matrix, or skip all of them.",
        "vLLM 0.10.2, and main of 2026-08-27",
        "https://github.com/vllm-project/vllm/issues/25378, https://github.com/vllm-project/vllm/issues/53992",
    ),
    Rule(
        "fused-schemes",
        "vllm",
        "misread",
        Where(formats=("compressed-tensors",), fused_unlike=True),
        _FIRST_PART,
        "vLLM at commit 008014e8",
        _VLLM_FUSED,
    ),
    Rule(
        "partial-group",
        "vllm",
        "will not load",
        Where(formats=_FORMATS_OF_INTS, numbers=("int",), rounds_inputs=False, partial_group=True),
        "the number of inputs is not a multiple of the group size, which vLLM refuses. Use a group size that "
        "divides it.",
        "vLLM at commit 007d5005",
        _VLLM_MARLIN,
    ),
    Rule(
        "marlin-shape",
        "vllm",
        "slow",
        Where(formats=_FORMATS_OF_INTS, numbers=("int",), rounds_inputs=False, not_multiples_of=(64, 128)),
        "the Marlin kernels ask for multiples of 64 outputs and 128 inputs; other kernels, or padding, take over. "
        "Tensor parallelism divides these numbers further.",
        "vLLM at commit 007d5005",
        _VLLM_MARLIN,
    ),
    Rule(
        "marlin-group",
        "vllm",
        "slow",
        Where(formats=_FORMATS_OF_INTS, numbers=("int",), rounds_inputs=False, groups_other_than=_MARLIN_GROUPS),
        "the Marlin kernels know groups of 32, 64, 128 and whole rows only.",
        "vLLM at commit 007d5005",
        _VLLM_MARLIN,
    ),
    Rule(
        "marlin-asymmetric",
        "vllm",
        "slow",
        Where(formats=("gptq",), symmetric=False),
        "the Marlin kernels take GPTQ codes only without zero points; the older GPTQ kernels take over.",
        "vLLM at commit 007d5005",
        _VLLM_MARLIN,
    ),
    Rule(
        "marlin-gpu",
        "vllm",
        "slow",
        Where(formats=(*_FORMATS_OF_INTS, "awq"), numbers=("int",), rounds_inputs=False, below=(8, 0)),
        "the Marlin kernels need compute capability 8.0 (Ampere) or later.",
        "vLLM 0.14.0, table of supported hardware",
        f"{_VLLM_DOCS}/v0.14.0/features/quantization/",
    ),
    Rule(
        "awq-gpu",
        "vllm",
        "will not load",
        Where(formats=("awq",), below=(7, 5)),
        "AWQ needs compute capability 7.5 (Turing) or later.",
        "vLLM 0.14.0, table of supported hardware",
        f"{_VLLM_DOCS}/v0.14.0/features/quantization/",
    ),
    Rule(
        "int8-gpu-old",
        "vllm",
        "will not load",
        Where(formats=("compressed-tensors",), numbers=("int",), rounds_inputs=True, below=(7, 5)),
        "8-bit integer weights and activations need compute capability 7.5 (Turing) or later.",
        "vLLM 0.14.0, table of supported hardware",
        f"{_VLLM_DOCS}/v0.14.0/features/quantization/",
    ),
    Rule(
        "int8-gpu-new",
        "vllm",
        "will not load",
        Where(formats=("compressed-tensors",), numbers=("int",), rounds_inputs=True, at_least=(10, 0)),
        "8-bit integer activations are not supported from compute capability 10.0 (Blackwell) on. Use fp8 there.",
        "vLLM, latest documentation of November 2026",
        f"{_VLLM_DOCS}/latest/features/quantization/int8/",
    ),
    Rule(
        "fp8-gpu-older",
        "vllm",
        "slow",
        Where(numbers=("float8",), below=(8, 9), at_least=(7, 5)),
        "fp8 is computed from compute capability 8.9 (Ada) on; before it runs with 16-bit activations, weights only.",
        "vLLM 0.32.0",
        f"{_VLLM_DOCS}/v0.32.0/features/quantization/llm_compressor/fp8/",
    ),
    Rule(
        "fp8-gpu-oldest",
        "vllm",
        "will not load",
        Where(numbers=("float8",), below=(7, 5)),
        "fp8 needs compute capability 7.5 (Turing) for weights only, and 8.9 for activations too.",
        "vLLM 0.32.0",
        f"{_VLLM_DOCS}/v0.32.0/features/quantization/llm_compressor/fp8/",
    ),
    Rule(
        "nvfp4-gpu",
        "vllm",
        "slow",
        Where(numbers=("nvfp4",), rounds_inputs=True, below=(10, 0)),
        "before compute capability 10.0 (Blackwell) vLLM does not quantize activations to NVFP4, only weights.",
        "LLM Compressor, stable documentation of November 2026",
        f"{_VLLM_DOCS.removesuffix('/en')}/projects/llm-compressor/en/stable/examples/quantization_w4a4_fp4/",
    ),
    Rule(
        "quantized-head",
        "vllm",
        "needs",
        Where(formats=("compressed-tensors",), head=True),
        "a quantized output head in compressed-tensors loads only in a vLLM that has pull request 37291 (March 2026).",
        "vLLM 0.10.2 failed, pull request 37291 repairs it",
        "https://github.com/vllm-project/vllm/pull/37291, https://github.com/vllm-project/llm-compressor/issues/1820",
    ),
    Rule(
        "cache-scheme",
        "vllm",
        "will not load",
        Where(formats=("compressed-tensors",), whole=True, cache_unlike_float8=True),
        "the key-value cache may be quantized only to 8-bit floats, symmetric, with one scale for each tensor.",
        "vLLM at commit 004dadbe",
        _VLLM_TENSORS,
    ),
    Rule("gptq-zero-points", "vllm", "misread", _VERSION_1_WHERE, _VERSION_1, "AutoGPTQ 9f7d3707", _AUTOGPTQ),
    Rule(
        "gguf",
        "vllm",
        "needs",
        Where(formats=("gguf",), whole=True),
        "the loader of GGUF files left vLLM; the package vllm-gguf-plugin brings it.",
        "vllm-gguf-plugin with vLLM 0.27",
        "https://github.com/vllm-project/vllm-gguf-plugin",
    ),
    Rule(
        "fused-skipped",
        "sglang",
        "will not load",
        Where(formats=("compressed-tensors",), fused_skipped=True),
        "SGLang merges q, k and v, and gate and up, and stops where only some of the parts are quantized. Quantize all "
        "parts of one matrix, or skip all of them.",
        "SGLang at commit 06b5b190",
        _SGLANG_FUSED,
    ),
    Rule(
        "fused-schemes",
        "sglang",
        "misread",
        Where(formats=("compressed-tensors",), fused_unlike=True),
        _FIRST_PART,
        "SGLang at commit 06b5b190",
        _SGLANG_FUSED,
    ),
    Rule(
        "asymmetric",
        "sglang",
        "needs",
        Where(formats=("compressed-tensors",), numbers=("int",), rounds_inputs=False, symmetric=False),
        "weights with zero points load only in an SGLang that has pull request 25292 (May 2026).",
        "SGLang, pull request 25292",
        "https://github.com/sgl-project/sglang/pull/25292",
    ),
    Rule(
        "quantized-head",
        "sglang",
        "misread",
        Where(formats=("compressed-tensors",), head=True),
        "a quantized output head loads without an error and is never read: answers are garbage. Leave the head in 16 "
        "bits.",
        "SGLang, issue of 2026-08-18",
        "https://github.com/sgl-project/sglang/issues/35358",
    ),
    Rule(
        "gptq-bits",
        "sglang",
        "will not load",
        Where(formats=("gptq",), bits_other_than=(2, 3, 4, 8)),
        "GPTQ codes may have 2, 3, 4 or 8 bits.",
        "SGLang at commit 006d0961",
        _SGLANG_GPTQ,
    ),
    Rule(
        "partial-group",
        "sglang",
        "will not load",
        Where(formats=("gptq",), partial_group=True),
        "the number of inputs is not a multiple of the group size. Use a group size that divides it.",
        "SGLang at commit 006d0961",
        _SGLANG_GPTQ,
    ),
    Rule(
        "marlin-group",
        "sglang",
        "slow",
        Where(formats=("gptq",), groups_other_than=_MARLIN_GROUPS),
        "the Marlin kernels know groups of 32, 64, 128 and whole rows only.",
        "SGLang at commit 006d0961",
        _SGLANG_GPTQ,
    ),
    Rule(
        "marlin-asymmetric",
        "sglang",
        "slow",
        Where(formats=("gptq",), symmetric=False),
        "the Marlin kernels take GPTQ codes only without zero points; the older GPTQ kernels take over.",
        "SGLang at commit 006d0961",
        _SGLANG_GPTQ,
    ),
    Rule(
        "marlin-gpu",
        "sglang",
        "slow",
        Where(formats=("gptq",), below=(8, 0)),
        "the Marlin kernels need compute capability 8.0 (Ampere) or later.",
        "SGLang at commit 006d0961",
        _SGLANG_GPTQ,
    ),
    Rule("gptq-zero-points", "sglang", "misread", _VERSION_1_WHERE, _VERSION_1, "AutoGPTQ 9f7d3707", _AUTOGPTQ),
    Rule(
        "gptq-packages",
        "transformers",
        "needs",
        Where(formats=("gptq",), whole=True),
        "GPTQ loads only with the packages optimum (1.24 or later) and gptqmodel (1.4.3 or later).",
        "transformers 5.24.0",
        f"{_QUANTIZERS}/quantizer_gptq.py",
    ),
    Rule(
        "awq-packages",
        "transformers",
        "needs",
        Where(formats=("awq",), whole=True),
        "AWQ loads only with the packages gptqmodel and accelerate.",
        "transformers 5.24.0",
        f"{_QUANTIZERS}/quantizer_awq.py",
    ),
    Rule(
        "bitsandbytes-packages",
        "transformers",
        "needs",
        Where(formats=("bitsandbytes",), whole=True),
        "bitsandbytes checkpoints load only with the packages bitsandbytes and accelerate.",
        "transformers 5.24.0",
        f"{_QUANTIZERS}/quantizer_bnb_4bit.py",
    ),
    Rule(
        "decompressed",
        "transformers",
        "slow",
        Where(formats=("compressed-tensors",)),
        "transformers decompresses the codes at load or in the first forward pass: the model then takes the memory and "
        "time of 16 bits. use_optimized_inference=True keeps fp8 on compute capability 8.9 and later.",
        "transformers 5.24.0",
        f"{_QUANTIZERS}/quantizer_compressed_tensors.py",
    ),
    Rule(
        "asymmetric",
        "transformers",
        "will not load",
        Where(formats=("compressed-tensors",), symmetric=False, stored_dequantize=False),
        'transformers\' compressed layers have no place for zero points. "dequantize": true in the quantization_config '
        "makes them load.",
        "transformers 5.23 with compressed-tensors 0.20, as qtool found it",
        "qtool/formats/compressed_tensors.py",
    ),
    Rule(
        "conv1d",
        "transformers",
        "misread",
        Where(formats=("compressed-tensors",), model_types=("gpt2",), leaves=("c_attn", "c_proj", "c_fc")),
        "transformers cannot load Conv1D layers from compressed-tensors and may leave them random with no more than a "
        "warning. Write --format gptq for GPTQModel.",
        "transformers 5.23 with compressed-tensors 0.20, as qtool found it",
        "qtool/quantize/output/lint.py",
    ),
    Rule(
        "experts-int8",
        "transformers",
        "will not load",
        Where(formats=("compressed-tensors",), numbers=("int",), rounds_inputs=True, expert=True),
        "transformers refuses experts with 8-bit integer inputs.",
        "transformers 5.23 with compressed-tensors 0.20, as qtool found it",
        "qtool/quantize/output/lint.py",
    ),
    Rule(
        "experts-fp8",
        "transformers",
        "misread",
        Where(formats=("compressed-tensors",), numbers=("float8",), rounds_inputs=True, expert=True),
        "transformers does not round the inputs of fp8 experts: scores are not those of a server.",
        "transformers 5.23 with compressed-tensors 0.20, as qtool found it",
        "qtool/quantize/output/lint.py",
    ),
    Rule(
        "experts-unlike",
        "transformers",
        "will not load",
        Where(formats=("compressed-tensors",), experts_unlike=True),
        "transformers loads experts only if all are quantized, symmetrically and by one scheme.",
        "transformers 5.23 with compressed-tensors 0.20, as qtool found it",
        "qtool/quantize/output/lint.py",
    ),
    Rule(
        "experts-gptq",
        "transformers",
        "will not load",
        Where(formats=("gptq",), expert=True),
        "transformers has no module for experts in GPTQ layout; servers do.",
        "transformers 5.23 with compressed-tensors 0.20, as qtool found it",
        "qtool/quantize/output/lint.py",
    ),
    Rule("gptq-zero-points", "transformers", "misread", _VERSION_1_WHERE, _VERSION_1, "AutoGPTQ 9f7d3707", _AUTOGPTQ),
    Rule(
        "gguf",
        "transformers",
        "slow",
        Where(formats=("gguf",), whole=True),
        "transformers dequantizes a GGUF file as it loads it: the model takes the memory and time of 16 or 32 bits.",
        "transformers, issue of 2024-11-18",
        "https://github.com/huggingface/transformers/issues/34417",
    ),
    Rule(
        "no-gguf",
        "llama.cpp",
        "will not load",
        Where(other_than_formats=("gguf",), whole=True),
        "llama.cpp loads GGUF files only. `qtool convert` writes one.",
        "llama.cpp, issue of 2024-12-24",
        "https://github.com/ggml-org/llama.cpp/issues/10965",
    ),
    Rule(
        "rounded-twice",
        "llama.cpp",
        "misread",
        Where(formats=("compressed-tensors",)),
        "llama.cpp's own converter dequantizes these codes, and its quantizer then rounds them a second time. `qtool "
        "convert` keeps the codes of 4 and 8 bits in groups of 32.",
        "llama.cpp, pull request 17069 (November 2025)",
        "https://github.com/ggml-org/llama.cpp/pull/17069",
    ),
    Rule(
        "marlin-shape",
        "gptqmodel",
        "slow",
        Where(formats=("gptq",), not_multiples_of=(64, 1)),
        "the Marlin kernels ask for multiples of 64 outputs; other kernels take over.",
        "GPTQModel at commit 00a2ed24",
        _GPTQMODEL_MARLIN,
    ),
    Rule(
        "marlin-group",
        "gptqmodel",
        "slow",
        Where(formats=("gptq",), groups_other_than=_MARLIN_GROUPS),
        "the Marlin kernels know groups of 32, 64, 128 and whole rows only.",
        "GPTQModel at commit 00a2ed24",
        _GPTQMODEL_MARLIN,
    ),
    Rule(
        "marlin-bits",
        "gptqmodel",
        "slow",
        Where(formats=("gptq",), bits_other_than=(4, 8)),
        "the Marlin kernels know 4 and 8 bits only.",
        "GPTQModel at commit 00a2ed24",
        _GPTQMODEL_MARLIN,
    ),
    Rule(
        "marlin-asymmetric",
        "gptqmodel",
        "slow",
        Where(formats=("gptq",), symmetric=False),
        "the Marlin kernels take codes only without zero points.",
        "GPTQModel at commit 00a2ed24",
        _GPTQMODEL_MARLIN,
    ),
    Rule(
        "marlin-gpu",
        "gptqmodel",
        "slow",
        Where(formats=("gptq",), below=(8, 0)),
        "the Marlin kernels need compute capability 8.0 (Ampere) or later.",
        "GPTQModel at commit 00a2ed24",
        _GPTQMODEL_MARLIN,
    ),
    Rule("gptq-zero-points", "gptqmodel", "misread", _VERSION_1_WHERE, _VERSION_1, "AutoGPTQ 9f7d3707", _AUTOGPTQ),
)
