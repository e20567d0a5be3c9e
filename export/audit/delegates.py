"""Which operators the accelerators of a phone take, as their makers list them. Data, each list with its source.

XNNPACK needs no list for a .tflite: `export.audit.tflite` asks LiteRT itself what it hands over. A list says what a
delegate takes in principle; the driver of a phone may take less.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from export.audit.contents import Contents, Format, Operator

LARGEST_RANK = 4  # of tensors, for all of these


@dataclass(frozen=True)
class DelegateList:
    """Attributes:
    title: of the delegate, for people.
    operators: by the format's names.
    dtypes: of computed values.
    source: of the list.
    """

    title: str
    operators: frozenset[str]
    dtypes: frozenset[str]
    source: str

    def takes(self, contents: Contents, operator: Operator) -> bool:
        """Whether kind, types and ranks are on the list."""
        tensors = contents.touched(operator)
        small = all(tensor.shape is None or len(tensor.shape) <= LARGEST_RANK for tensor in tensors)
        computed = contents.of((*contents.computed_inputs(operator), *operator.outputs))
        return operator.kind in self.operators and small and all(t.dtype in self.dtypes for t in computed)


def _named(names: str) -> frozenset[str]:
    return frozenset(names.split())


TFLITE_TYPES = frozenset({"FLOAT32", "FLOAT16", "INT8", "UINT8", "INT32", "BOOL"})
ONNX_TYPES = frozenset({"FLOAT32", "FLOAT16", "INT8", "UINT8", "INT32", "INT64", "BOOL", "UNKNOWN"})

GPU_TFLITE = _named(
    """
    ABS ADD ADD_N ATAN2 AVERAGE_POOL_2D BATCH_MATMUL BITCAST CAST CEIL CONCATENATION CONV_2D COS CUMSUM DENSIFY
    DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE DIV DYNAMIC_UPDATE_SLICE ELU EMBEDDING_LOOKUP EQUAL EXP FLOOR FLOOR_DIV
    FLOOR_MOD FULLY_CONNECTED GATHER GELU GREATER GREATER_EQUAL HARD_SWISH LEAKY_RELU LESS LESS_EQUAL LOG LOGICAL_AND
    LOGICAL_NOT LOGICAL_OR LOGISTIC LSTM MAXIMUM MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL NEG NOT_EQUAL ONE_HOT PACK PAD
    PADV2 POW PRELU QUANTIZE REDUCE_ALL REDUCE_ANY REDUCE_MAX REDUCE_MIN REDUCE_PROD RELU RELU6 RELU_N1_TO_1 RESHAPE
    RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2 RIGHT_SHIFT ROUND RSQRT SELECT SELECT_V2 SIGN SIN SLICE SOFTMAX
    SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE STABLEHLO_BROADCAST_IN_DIM STABLEHLO_CBRT
    STABLEHLO_CLAMP STABLEHLO_REMAINDER STABLEHLO_SHIFT_LEFT STRIDED_SLICE SUB SUM TANH TILE TOPK_V2 TRANSPOSE
    TRANSPOSE_CONV
    """
)
NNAPI_TFLITE = _named(
    """
    ABS ADD ARG_MAX ARG_MIN AVERAGE_POOL_2D BATCH_TO_SPACE_ND BIDIRECTIONAL_SEQUENCE_LSTM CAST CONCATENATION CONV_2D
    DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE DIV ELU EMBEDDING_LOOKUP EQUAL EXP EXPAND_DIMS FILL FLOOR
    FULLY_CONNECTED GATHER GREATER GREATER_EQUAL HARD_SWISH HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D LESS
    LESS_EQUAL LOCAL_RESPONSE_NORMALIZATION LOG LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC LOG_SOFTMAX LSH_PROJECTION
    LSTM MAXIMUM MAX_POOL_2D MEAN MINIMUM MUL NEG NOT_EQUAL PAD PADV2 POW PRELU QUANTIZE RANK REDUCE_ANY REDUCE_MAX
    REDUCE_MIN REDUCE_PROD RELU RELU6 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR RNN RSQRT SELECT SIN
    SLICE SOFTMAX SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SQRT SQUEEZE STRIDED_SLICE SUB SUM SVDF TANH TILE TOPK_V2
    TRANSPOSE TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM UNIDIRECTIONAL_SEQUENCE_RNN
    """
)
NNAPI_ONNX = _named(
    """
    Abs Add AveragePool Cast Clip Concat Conv DepthToSpace DequantizeLinear Div Elu Exp Flatten Floor Gather Gemm
    GlobalAveragePool GlobalMaxPool Identity Log MatMul Max MaxPool Min Mul Neg PRelu Pad Pow QLinearConv QLinearMatMul
    QuantizeLinear Relu Reshape Resize Sigmoid Sin Slice Softmax Sqrt Squeeze Sub Tanh Transpose Unsqueeze
    com.microsoft:QLinearAdd com.microsoft:QLinearAveragePool com.microsoft:QLinearSigmoid
    """
)
XNNPACK_ONNX = _named(
    """
    AveragePool Clip Conv ConvTranspose DequantizeLinear Gemm MatMul MaxPool QLinearConv QuantizeLinear Relu Resize
    Softmax
    """
)

LISTS: Mapping[tuple[str, Format], DelegateList] = {
    ("gpu", "tflite"): DelegateList(
        "LiteRT's GPU delegate",
        GPU_TFLITE,
        TFLITE_TYPES,
        "LiteRT, tflite/tools/versioning/gpu_compatibility.cc (CheckGpuDelegateCompatibility), commit 007226f4",
    ),
    ("nnapi", "tflite"): DelegateList(
        "NNAPI, feature level 5 (Android 12)",
        NNAPI_TFLITE,
        TFLITE_TYPES,
        "Android NDK, NeuralNetworksTypes.h: operations up to ANEURALNETWORKS_RANK (101), under TFLite's names",
    ),
    ("nnapi", "onnx"): DelegateList(
        "ONNX Runtime's NNAPI provider",
        NNAPI_ONNX,
        ONNX_TYPES,
        "ONNX Runtime, tools/ci_build/github/android/nnapi_supported_ops.md, commit 53086759",
    ),
    ("xnnpack", "onnx"): DelegateList(
        "ONNX Runtime's XNNPACK provider",
        XNNPACK_ONNX,
        ONNX_TYPES,
        "ONNX Runtime, core/providers/xnnpack/detail/node_support_checker.cc, commit 6479e4bc; Relu and Clip only after a "
        "convolution or pooling",
    ),
}
NAMES = ("xnnpack", "gpu", "nnapi")
