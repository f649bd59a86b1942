"""Every refusal: the call, its arguments and options, the exception, and its one line of text.

Names of dtypes and of libraries are the caller's own, and stand here as {float}, {int}, {library};
{array} is the type of its arrays. Eagerly: test_bad_input.py; traced: test_bad_input_traced.py.
"""

import math
from functools import partial
from typing import NamedTuple

import numpy as np

import softmaxkit
from softmaxkit import calibration

AxisError = np.exceptions.AxisError
NAN, INF = math.nan, math.inf


class Of(NamedTuple):
    """Stands for an array of the library under test: zeros of a shape (tuple), or these values."""

    dtype: str
    value: tuple[int, ...] | list | float


DTYPES = {"float": "float32", "int": "int32", "bool": "bool", "complex": "complex64"}
Float, Int, Bool, Complex = (partial(Of, dtype) for dtype in DTYPES.values())
LOGITS = Float((8, 10))
LABELS = Int((8,))
REAL = "expected real numbers; pass the real part, or magnitudes."
LIBRARIES = "an array of NumPy, PyTorch, JAX, TensorFlow or an array-API library"
FLOATING = "expected a floating dtype of {library}; pass one, or its name, such as 'float32'."
UNEQUAL = (
    "of rows of different lengths; expected a rectangular one; pad the rows, and mask with where= "
    "or ignore_index=."
)

# fmt: off
TYPES = [
    # Framework's own types that are refused: tests/test_dispatch.py.
    ("softmax", (None,), {}, TypeError,
     f"softmax: x is a NoneType; expected {LIBRARIES}; convert it to one of those."),
    ("log_softmax", ("1, 2",), {}, TypeError,
     f"log_softmax: x is a str; expected {LIBRARIES}; convert it to one of those."),
    ("logsumexp", ({1, 2},), {}, TypeError,
     f"logsumexp: x is a set; expected {LIBRARIES}; convert it to one of those."),
    ("cross_entropy", ({"logits": 1}, LABELS), {}, TypeError,
     f"cross_entropy: logits is a dict; expected {LIBRARIES}; convert it to one of those."),
    ("focal_loss", (range(3), LABELS), {}, TypeError,
     f"focal_loss: logits is a range; expected {LIBRARIES}; convert it to one of those."),
    ("softmax", (np.ndarray,), {}, TypeError,
     f"softmax: x is a type; expected {LIBRARIES}; convert it to one of those."),
    ("softmax", (np.zeros((2, 2)).view(np.matrix),), {}, TypeError,
     f"softmax: x is a numpy.matrix; expected {LIBRARIES}; pass numpy.asarray of it."),
    ("softmax", (np.ma.array([1.0, 2.0]),), {}, TypeError,
     f"softmax: x is a numpy.ma.MaskedArray; expected {LIBRARIES}; pass its data, and its inverted "
     "mask as where=."),
    ("softmax", (np.array([1, None]),), {}, TypeError,
     "softmax: x holds dtype object; expected numbers; convert it with astype."),
    ("log_softmax", (np.array(["a", "b"]),), {}, TypeError,
     "log_softmax: x holds dtype <U1; expected numbers; convert it with astype."),
    ("logsumexp", (np.array(["2026-01-01"], "M8[D]"),), {}, TypeError,
     "logsumexp: x holds dtype datetime64[D]; expected numbers; convert it with astype."),
    ("softmax", (np.array([1], "m8[s]"),), {}, TypeError,
     "softmax: x holds dtype timedelta64[s]; expected numbers; convert it with astype."),
    ("softmax", (np.zeros(2, [("a", "f4")]),), {}, TypeError,
     "softmax: x holds dtype [('a', '<f4')]; expected numbers; convert it with astype."),
    ("softmax", ([[1.0], [1.0, 2.0]],), {}, ValueError,
     f"softmax: x is a list {UNEQUAL}"),
    ("one_hot", (object(), 3), {}, TypeError,
     f"one_hot: labels is a object; expected {LIBRARIES}; convert it to one of those."),
    ("smooth_labels", (b"01", 0.1), {}, TypeError,
     f"smooth_labels: targets is a bytes; expected {LIBRARIES}; convert it to one of those."),
    ("softmax", ([np.ma.array([1.0, 2.0]), np.ma.array([1.0, 2.0])],), {}, TypeError,
     f"softmax: x is a list of numpy.MaskedArray; expected {LIBRARIES}; stack them with their own "
     "library."),
    ("value_and_grad", (Float((8, 10)),), {}, TypeError,
     "value_and_grad: loss is a {array}; expected one of binary_cross_entropy, cross_entropy, "
     "focal_loss, poly_loss_cross_entropy, sigmoid_focal_loss, linear_cross_entropy of softmaxkit; "
     "for a function of your own use the autodiff of your library."),
    ("value_and_grad", (len,), {}, TypeError,
     "value_and_grad: loss is <built-in function len>; expected one of binary_cross_entropy, "
     "cross_entropy, focal_loss, poly_loss_cross_entropy, sigmoid_focal_loss, linear_cross_entropy "
     "of softmaxkit; for a function of your own use the autodiff of your library."),
]

ACTIVATIONS = [
    # x
    ("softmax", (Complex((2,)),), {}, TypeError,
     f"softmax: x has dtype {{complex}}; {REAL}"),
    ("log_softmax", (Complex((2,)),), {}, TypeError,
     f"log_softmax: x has dtype {{complex}}; {REAL}"),
    ("logsumexp", (Complex((2,)),), {}, TypeError,
     f"logsumexp: x has dtype {{complex}}; {REAL}"),
    # axis
    ("softmax", (Float((2, 3)), 2), {}, AxisError,
     "softmax: axis is 2; expected an axis of a 2-d array, from -2 to 1; pass one of those."),
    ("log_softmax", (Float((2, 3)), -3), {}, AxisError,
     "log_softmax: axis is -3; expected an axis of a 2-d array, from -2 to 1; pass one of those."),
    ("logsumexp", (Float((2, 3)), (0, 2)), {}, AxisError,
     "logsumexp: axis is 2; expected an axis of a 2-d array, from -2 to 1; pass one of those."),
    ("softmax", (Float(()),), {}, AxisError,
     "softmax: axis is -1; expected None for a 0-d array; pass axis=None, or an array with a class "
     "axis."),
    ("softmax", (Float((2, 3)), 1.0), {}, TypeError,
     "softmax: axis is 1.0; expected an int; pass one, such as -1."),
    ("softmax", (Float((2, 3)), True), {}, TypeError,
     "softmax: axis is True; expected an int; pass one, such as -1."),
    ("logsumexp", (Float((2, 3)), "last"), {}, TypeError,
     "logsumexp: axis is 'last'; expected an int; pass one, such as -1."),
    ("softmax", (Float((2, 3)), [0, 1]), {}, TypeError,
     "softmax: axis is [0, 1]; expected an int; pass one, such as -1."),
    ("softmax", (Float((2, 3)), (0, None)), {}, TypeError,
     "softmax: axis is None; expected an int; pass one, such as -1."),
    ("softmax", (Float((2, 3)), Bool((2, 3))), {}, TypeError,
     "softmax: axis is a {array}; expected an int; pass one, such as -1."),
    ("log_softmax", (Float((2, 3)), ()), {}, ValueError,
     "log_softmax: axis is (); expected at least one axis; pass None for all."),
    ("logsumexp", (Float((2, 3)), (1, -1)), {}, ValueError,
     "logsumexp: axis is (1, -1); expected different axes; name each once."),
    # where
    ("softmax", (Float((2, 3)),), {"where": Int((2, 3))}, TypeError,
     "softmax: where has dtype {int}; expected bool, True where an entry takes part; compare it "
     "(where != 0)."),
    ("logsumexp", (Float((2, 3)),), {"where": Float((2, 3))}, TypeError,
     "logsumexp: where has dtype {float}; expected bool, True where an entry takes part; compare "
     "it (where != 0)."),
    ("softmax", (Float((2, 3)),), {"where": Bool((2,))}, ValueError,
     "softmax: where has shape (2,); expected one that broadcasts to the shape of x, (2, 3); "
     "reshape it."),
    ("softmax", (Float((1, 3)),), {"where": Bool((2, 3))}, ValueError,
     "softmax: where has shape (2, 3); expected one that broadcasts to the shape of x, (1, 3); "
     "reshape it."),
    ("softmax", (Float((2, 3)),), {"where": Bool((0,))}, ValueError,
     "softmax: where has shape (0,); expected one that broadcasts to the shape of x, (2, 3); "
     "reshape it."),
    ("log_softmax", (Float((3,)),), {"where": [[True, True, False]]}, ValueError,
     "log_softmax: where has shape (1, 3); expected one that broadcasts to the shape of x, (3,); "
     "squeeze it."),
    ("softmax", (Float((2, 3)),), {"where": [[True], [True, False]]}, ValueError,
     f"softmax: where is a list {UNEQUAL}"),
    ("softmax", (Float((2, 3)),), {"where": {1}}, TypeError,
     f"softmax: where is a set; expected {LIBRARIES}; convert it to one of those."),
    # temperature
    ("softmax", (Float((2, 3)),), {"temperature": True}, TypeError,
     "softmax: temperature has dtype {bool}; expected a positive number or an array of them; "
     "pass 1.0 for none."),
    ("softmax", (Float((2, 3)),), {"temperature": 0}, ValueError,
     "softmax: temperature is 0; expected a positive number; pass one (for the limit 0 take the "
     "argmax)."),
    ("log_softmax", (Float((2, 3)),), {"temperature": -1.5}, ValueError,
     "log_softmax: temperature is -1.5; expected a positive number; pass one (for the limit 0 take "
     "the argmax)."),
    ("softmax", (Float((2, 3)),), {"temperature": NAN}, ValueError,
     "softmax: temperature is nan; expected a positive number; pass one (for the limit 0 take the "
     "argmax)."),
    ("softmax", (Float((2, 3)),), {"temperature": INF}, ValueError,
     "softmax: temperature is inf; expected a positive number; pass one (for the limit 0 take the "
     "argmax)."),
    ("softmax", (Float((2, 3)),), {"temperature": np.array(-1.5)}, ValueError,
     "softmax: temperature is -1.5; expected a positive number; pass one (for the limit 0 take the "
     "argmax)."),
    ("softmax", (Float((2, 3)),), {"temperature": None}, TypeError,
     "softmax: temperature is None; expected a positive number or an array of them; pass 1.0 for "
     "none."),
    ("softmax", (Float((2, 3)),), {"temperature": "hot"}, TypeError,
     f"softmax: temperature is a str; expected {LIBRARIES}; convert it to one of those."),
    ("softmax", (Float((2, 3)),), {"temperature": Complex(())}, TypeError,
     f"softmax: temperature has dtype {{complex}}; {REAL}"),
    ("softmax", (Float((2, 3)),), {"temperature": 1j}, TypeError,
     f"softmax: temperature has dtype {{complex128}}; {REAL}"),
    ("softmax", (Float((2, 3)),), {"temperature": Float((2,))}, ValueError,
     "softmax: temperature has shape (2,); expected one that broadcasts to the shape of x, (2, 3); "
     "reshape it."),
    ("softmax", (Float((2, 3)),), {"temperature": []}, ValueError,
     "softmax: temperature has shape (0,); expected one that broadcasts to the shape of x, (2, 3); "
     "reshape it."),
    # keepdims
    ("logsumexp", (Float((2, 3)),), {"keepdims": 1}, TypeError,
     "logsumexp: keepdims is 1; expected True or False; pass one of them."),
    ("logsumexp", (Float((2, 3)),), {"keepdims": [True]}, TypeError,
     "logsumexp: keepdims is [True]; expected True or False; pass one of them."),
    ("logsumexp", (Float((2, 3)),), {"keepdims": Bool((2, 3))}, TypeError,
     "logsumexp: keepdims is a {array}; expected True or False; pass one of them."),
    # dtype
    ("softmax", (Float((2, 3)),), {"dtype": "int32"}, TypeError,
     f"softmax: dtype is 'int32'; {FLOATING}"),
    ("log_softmax", (Float((2, 3)),), {"dtype": "float31"}, TypeError,
     f"log_softmax: dtype is 'float31'; {FLOATING}"),
    ("logsumexp", (Float((2, 3)),), {"dtype": "complex64"}, TypeError,
     f"logsumexp: dtype is 'complex64'; {FLOATING}"),
    ("softmax", (Float((2, 3)),), {"dtype": 3.5}, TypeError,
     f"softmax: dtype is 3.5; {FLOATING}"),
    ("softmax", (Float((2, 3)),), {"dtype": "object"}, TypeError,
     f"softmax: dtype is 'object'; {FLOATING}"),
    ("softmax", (Float((2, 3)),), {"dtype": int}, TypeError,
     f"softmax: dtype is <class 'int'>; {FLOATING}"),
    ("softmax", (Float((2, 3)),), {"dtype": np.dtype("V2")}, TypeError,
     f"softmax: dtype is dtype('V2'); {FLOATING}"),
    ("softmax", (Float((2, 3)),), {"dtype": "float32_ref"}, TypeError,
     f"softmax: dtype is 'float32_ref'; {FLOATING}"),
    ("softmax", (Float((2, 3)),), {"dtype": Float((2, 3))}, TypeError,
     f"softmax: dtype is a {{array}}; {FLOATING}"),
]

VJP = [
    ("vjp(softmax)", (Float((2, 3)), None), {}, TypeError,
     "vjp(softmax): cotangent is None; expected floats; pass an array of shape (2, 3)."),
    ("vjp(log_softmax)", (Float((2, 3)), Int((2, 3))), {}, TypeError,
     "vjp(log_softmax): cotangent has dtype {int}; expected floats; pass an array of shape "
     "(2, 3)."),
    ("vjp(logsumexp)", (Float((2, 3)), Float((2, 3))), {}, ValueError,
     "vjp(logsumexp): cotangent has shape (2, 3); expected (2,), that of the result; broadcast "
     "it."),
    ("vjp(softmax)", (Float((2, 3)), Float((1, 3))), {}, ValueError,
     "vjp(softmax): cotangent has shape (1, 3); expected (2, 3), that of the result; broadcast "
     "it."),
    ("vjp(softmax)", (Int((2, 3)), Float((2, 3))), {}, TypeError,
     "vjp(softmax): x has dtype {int}; expected a floating dtype; convert it."),
    ("vjp", (len,), {}, TypeError,
     "vjp: activation is <built-in function len>; expected one of log_softmax, logsumexp, softmax "
     "of softmaxkit; for a function of your own use the autodiff of your library."),
]

CLASS_LOSSES = [
    # logits
    ("cross_entropy", (Int((8, 10)), LABELS), {}, TypeError,
     "cross_entropy: logits has dtype {int}; expected a floating dtype; convert it, and check that "
     "logits come before targets."),
    ("focal_loss", (Bool((8, 10)), LABELS), {}, TypeError,
     "focal_loss: logits has dtype {bool}; expected a floating dtype; convert it, and check that "
     "logits come before targets."),
    ("cross_entropy", (Complex((8, 10)), LABELS), {}, TypeError,
     f"cross_entropy: logits has dtype {{complex}}; {REAL}"),
    ("cross_entropy", (Float((8, 0)), LABELS), {}, ValueError,
     "cross_entropy: logits has shape (8, 0); expected at least one class along axis 1; pass "
     "logits with classes."),
    ("cross_entropy", (Float(()), Int(())), {}, AxisError,
     "cross_entropy: logits is 0-d, and axis is -1; expected an array with a class axis; pass one "
     "with at least one axis."),
    ("cross_entropy", (LOGITS, LABELS), {"axis": 2}, AxisError,
     "cross_entropy: axis is 2; expected an axis of a 2-d array, from -2 to 1; pass one of those."),
    ("focal_loss", (LOGITS, LABELS), {"axis": (0, 1)}, TypeError,
     "focal_loss: axis is (0, 1); expected an int; pass one, such as -1."),
    ("cross_entropy", (LOGITS, LABELS), {"axis": None}, TypeError,
     "cross_entropy: axis is None; expected an int; pass one, such as -1."),
    # targets
    ("cross_entropy", (LOGITS, None), {}, TypeError,
     "cross_entropy: targets is None; expected class indices or probabilities; pass them."),
    ("cross_entropy", (LOGITS, Bool((8,))), {}, TypeError,
     "cross_entropy: targets has dtype {bool}; expected integers for class indices or floats for "
     "probabilities; convert it to one of those."),
    ("focal_loss", (LOGITS, Complex((8, 10))), {}, TypeError,
     "focal_loss: targets has dtype {complex}; expected integers for class indices or floats for "
     "probabilities; convert it to one of those."),
    ("cross_entropy", (LOGITS, Int((8, 1))), {}, ValueError,
     "cross_entropy: targets has shape (8, 1); expected (8,) for class indices along axis -1 of "
     "logits (8, 10); squeeze it, or pass probabilities of the logits' shape."),
    ("cross_entropy", (LOGITS, Int((7,))), {}, ValueError,
     "cross_entropy: targets has shape (7,); expected (8,) for class indices along axis -1 of "
     "logits (8, 10); squeeze it, or pass probabilities of the logits' shape."),
    ("cross_entropy", (LOGITS, Int((8, 10))), {}, ValueError,
     "cross_entropy: targets has shape (8, 10); expected (8,) for class indices along axis -1 of "
     "logits (8, 10); convert it to floats if it holds probabilities or a one-hot matrix."),
    ("focal_loss", (Float((2, 10, 4)), Int((2, 10))), {"axis": 1}, ValueError,
     "focal_loss: targets has shape (2, 10); expected (2, 4) for class indices along axis -2 of "
     "logits (2, 10, 4); pass axis=2 if that is the axis of the classes."),
    ("cross_entropy", (Float((2, 3, 4, 4)), Int((2, 4, 4))), {}, ValueError,
     "cross_entropy: targets has shape (2, 4, 4); expected (2, 3, 4) for class indices along axis "
     "-1 of logits (2, 3, 4, 4); pass axis=1 if that is the axis of the classes."),
    ("cross_entropy", (Float((8, 10)), Int((8, 1))), {}, ValueError,
     "cross_entropy: targets has shape (8, 1); expected (8,) for class indices along axis -1 of "
     "logits (8, 10); squeeze it, or pass probabilities of the logits' shape."),
    ("softmax", (Float((2, 3)),), {"where": Bool((3, 2))}, ValueError,
     "softmax: where has shape (3, 2); expected one that broadcasts to the shape of x, (2, 3); "
     "reshape it."),
    ("cross_entropy", (LOGITS, Float((8,))), {}, ValueError,
     "cross_entropy: targets has shape (8,); expected (8, 10) for probabilities, which is the "
     "logits' shape; for class indices pass an integer dtype."),
    ("cross_entropy", (LOGITS, [[0], [1, 2]]), {}, ValueError,
     f"cross_entropy: targets is a list {UNEQUAL}"),
    ("cross_entropy", (LOGITS, [{0}, {1}]), {}, TypeError,
     f"cross_entropy: targets is a list of set; expected {LIBRARIES}; stack them with their own "
     "library."),
    ("cross_entropy", (LOGITS, ["cat"] * 8), {}, TypeError,
     "cross_entropy: targets holds dtype <U3; expected numbers; convert it with astype."),
    ("cross_entropy", (LOGITS, np.array([None] * 8)), {}, TypeError,
     "cross_entropy: targets holds dtype object; expected numbers; convert it with astype."),
    ("focal_loss", (LOGITS, {0: 1}), {}, TypeError,
     f"focal_loss: targets is a dict; expected {LIBRARIES}; convert it to one of those."),
    ("cross_entropy", (LOGITS, np.ma.array([0] * 8)), {}, TypeError,
     f"cross_entropy: targets is a numpy.ma.MaskedArray; expected {LIBRARIES}; pass its data, and "
     "its inverted mask as where=."),
    ("cross_entropy", (LOGITS, np.zeros((1, 8)).view(np.matrix)), {}, TypeError,
     f"cross_entropy: targets is a numpy.matrix; expected {LIBRARIES}; pass numpy.asarray of it."),
    # labels
    ("cross_entropy", (Float((3, 2)), Int([0, 2, 5])), {}, IndexError,
     "cross_entropy: targets[1] is 2; expected a class index in [0, 2) or ignore_index -100; "
     "correct the label, or mark the row with ignore_index."),
    ("focal_loss", (Float((3, 2)), Int([0, 1, -1])), {}, IndexError,
     "focal_loss: targets[2] is -1; expected a class index in [0, 2) or ignore_index -100; correct "
     "the label, or mark the row with ignore_index."),
    ("cross_entropy", (Float((2, 3, 2)), Int([[0, 1], [2, 3]])), {"axis": 1}, IndexError,
     "cross_entropy: targets[1, 1] is 3; expected a class index in [0, 3) or ignore_index -100; "
     "correct the label, or mark the row with ignore_index."),
    ("cross_entropy", (Float((3,)), Int(3)), {}, IndexError,
     "cross_entropy: targets is 3; expected a class index in [0, 3) or ignore_index -100; correct "
     "the label, or mark the row with ignore_index."),
    ("cross_entropy", (Float((2, 3)), Int([0, -100])), {"ignore_index": 1}, IndexError,
     "cross_entropy: targets[1] is -100; expected a class index in [0, 3) or ignore_index 1; "
     "correct the label, or mark the row with ignore_index."),
    ("cross_entropy", (Float((2, 3)), Of("int8", [0, 3])), {}, IndexError,
     "cross_entropy: targets[1] is 3; expected a class index in [0, 3) or ignore_index -100; "
     "correct the label, or mark the row with ignore_index."),
    ("cross_entropy", (Float((2, 300)), Of("int8", [0, -1])), {}, IndexError,
     "cross_entropy: targets[1] is -1; expected a class index in [0, 300) or ignore_index -100; "
     "correct the label, or mark the row with ignore_index."),
    ("cross_entropy", (Float((2, 3)), Int([0, -100])), {"ignore_index": None}, IndexError,
     "cross_entropy: targets[1] is -100; expected a class index in [0, 3); correct the label, or "
     "mark the row with ignore_index."),
    ("cross_entropy", (Float((2, 3)), [0, 7]), {}, IndexError,
     "cross_entropy: targets[1] is 7; expected a class index in [0, 3) or ignore_index -100; "
     "correct the label, or mark the row with ignore_index."),
    ("cross_entropy", (LOGITS, LABELS), {"ignore_index": 1.0}, TypeError,
     "cross_entropy: ignore_index is 1.0; expected an int or None; pass a label."),
    ("focal_loss", (LOGITS, LABELS), {"ignore_index": True}, TypeError,
     "focal_loss: ignore_index is True; expected an int or None; pass a label."),
    ("cross_entropy", (Float((2, 3)), Float((2, 3))), {"ignore_index": 1}, ValueError,
     "cross_entropy: ignore_index is 1 beside probabilities; expected it beside class indices "
     "only; leave rows out with a sample_weight of 0."),
    ("focal_loss", (Float((2, 3)), Float((2, 3))), {"ignore_index": 0}, ValueError,
     "focal_loss: ignore_index is 0 beside probabilities; expected it beside class indices only; "
     "leave rows out with a sample_weight of 0."),
    ("cross_entropy", (LOGITS, LABELS), {"ignore_index": LABELS}, TypeError,
     "cross_entropy: ignore_index is a {array}; expected an int or None; pass a label."),
    # weight, alpha
    ("cross_entropy", (LOGITS, LABELS), {"weight": Float((8,))}, ValueError,
     "cross_entropy: weight has shape (8,); expected (10,), one number for each class along axis 1 "
     "of logits (8, 10); pass one for every class."),
    ("cross_entropy", (LOGITS, LABELS), {"weight": Float((1,))}, ValueError,
     "cross_entropy: weight has shape (1,); expected (10,), one number for each class along axis 1 "
     "of logits (8, 10); pass one for every class."),
    ("cross_entropy", (LOGITS, LABELS), {"weight": 2.0}, ValueError,
     "cross_entropy: weight has shape (); expected (10,), one number for each class along axis 1 "
     "of logits (8, 10); pass one for every class."),
    ("cross_entropy", (LOGITS, LABELS), {"weight": Float((8, 10))}, ValueError,
     "cross_entropy: weight has shape (8, 10); expected (10,), one number for each class along "
     "axis 1 of logits (8, 10); pass one for every class."),
    ("cross_entropy", (LOGITS, LABELS), {"weight": Bool((10,))}, TypeError,
     "cross_entropy: weight has dtype {bool}; expected numbers, one for each class; to leave "
     "classes out pass where=."),
    ("cross_entropy", (LOGITS, LABELS), {"weight": Complex((10,))}, TypeError,
     f"cross_entropy: weight has dtype {{complex}}; {REAL}"),
    ("focal_loss", (LOGITS, LABELS), {"alpha": Float((1,))}, ValueError,
     "focal_loss: alpha has shape (1,); expected (10,), one number for each class along axis 1 of "
     "logits (8, 10); pass one for every class."),
    ("focal_loss", (LOGITS, LABELS), {"alpha": Float((3,))}, ValueError,
     "focal_loss: alpha has shape (3,); expected (10,), one number for each class along axis 1 of "
     "logits (8, 10); pass one for every class."),
    ("focal_loss", (LOGITS, LABELS), {"alpha": -0.25}, ValueError,
     "focal_loss: alpha is -0.25; expected a number at least 0; pass one."),
    ("focal_loss", (LOGITS, LABELS), {"alpha": np.array(-0.25)}, ValueError,
     "focal_loss: alpha is -0.25; expected a number at least 0; pass one."),
    ("focal_loss", (LOGITS, LABELS), {"alpha": Bool((10,))}, TypeError,
     "focal_loss: alpha has dtype {bool}; expected numbers, one for each class; to leave classes "
     "out pass where=."),
    # sample_weight, where, temperature
    ("cross_entropy", (LOGITS, LABELS), {"sample_weight": Float((7,))}, ValueError,
     "cross_entropy: sample_weight has shape (7,); expected one that broadcasts to the shape of "
     "the unreduced loss, (8,); reshape it."),
    ("cross_entropy", (LOGITS, LABELS), {"sample_weight": Float((0,))}, ValueError,
     "cross_entropy: sample_weight has shape (0,); expected one that broadcasts to the shape of "
     "the unreduced loss, (8,); reshape it."),
    ("focal_loss", (LOGITS, LABELS), {"sample_weight": Float((8, 1))}, ValueError,
     "focal_loss: sample_weight has shape (8, 1); expected one that broadcasts to the shape of the "
     "unreduced loss, (8,); squeeze it."),
    ("cross_entropy", (LOGITS, LABELS), {"sample_weight": Complex((8,))}, TypeError,
     f"cross_entropy: sample_weight has dtype {{complex}}; {REAL}"),
    ("cross_entropy", (LOGITS, LABELS), {"where": Int((10,))}, TypeError,
     "cross_entropy: where has dtype {int}; expected bool, True where an entry takes part; compare "
     "it (where != 0)."),
    ("focal_loss", (LOGITS, LABELS), {"where": Bool((8,))}, ValueError,
     "focal_loss: where has shape (8,); expected one that broadcasts to the shape of logits, "
     "(8, 10); reshape it."),
    ("cross_entropy", (LOGITS, LABELS), {"temperature": -1}, ValueError,
     "cross_entropy: temperature is -1; expected a positive number; pass one (for the limit 0 take "
     "the argmax)."),
    ("focal_loss", (LOGITS, LABELS), {"temperature": Float((3,))}, ValueError,
     "focal_loss: temperature has shape (3,); expected one that broadcasts to the shape of logits, "
     "(8, 10); reshape it."),
    ("cross_entropy", (LOGITS, LABELS), {"temperature": Bool(())}, TypeError,
     "cross_entropy: temperature has dtype {bool}; expected a positive number or an array of them; "
     "pass 1.0 for none."),
    ("focal_loss", (LOGITS, LABELS), {"temperature": Bool((8, 10))}, TypeError,
     "focal_loss: temperature has dtype {bool}; expected a positive number or an array of them; "
     "pass 1.0 for none."),
    # numbers
    ("cross_entropy", (LOGITS, LABELS), {"label_smoothing": 1.5}, ValueError,
     "cross_entropy: label_smoothing is 1.5; expected a number in [0, 1]; pass one."),
    ("focal_loss", (LOGITS, LABELS), {"label_smoothing": -0.1}, ValueError,
     "focal_loss: label_smoothing is -0.1; expected a number in [0, 1]; pass one."),
    ("cross_entropy", (LOGITS, LABELS), {"label_smoothing": NAN}, ValueError,
     "cross_entropy: label_smoothing is nan; expected a number in [0, 1]; pass one."),
    ("cross_entropy", (LOGITS, LABELS), {"label_smoothing": "0.1"}, TypeError,
     "cross_entropy: label_smoothing is a str; expected a number; pass a Python float."),
    ("cross_entropy", (LOGITS, LABELS), {"label_smoothing": True}, TypeError,
     "cross_entropy: label_smoothing is a bool; expected a number; pass a Python float."),
    ("cross_entropy", (LOGITS, LABELS), {"label_smoothing": np.array(1.5)}, ValueError,
     "cross_entropy: label_smoothing is 1.5; expected a number in [0, 1]; pass one."),
    ("cross_entropy", (LOGITS, LABELS), {"z_loss": -1e-4}, ValueError,
     "cross_entropy: z_loss is -0.0001; expected a number at least 0; pass one."),
    ("cross_entropy", (LOGITS, LABELS), {"z_loss": [0.1]}, TypeError,
     "cross_entropy: z_loss is a list; expected a number; pass a Python float."),
    ("cross_entropy", (LOGITS, LABELS), {"z_loss": Complex(())}, TypeError,
     "cross_entropy: z_loss has dtype {complex}; expected a number; pass a Python float."),
    ("focal_loss", (LOGITS, LABELS), {"label_smoothing": Bool(())}, TypeError,
     "focal_loss: label_smoothing has dtype {bool}; expected a number; pass a Python float."),
    ("focal_loss", (LOGITS, LABELS), {"gamma": Bool(())}, TypeError,
     "focal_loss: gamma has dtype {bool}; expected a number; pass a Python float."),
    ("focal_loss", (LOGITS, LABELS), {"gamma": -1}, ValueError,
     "focal_loss: gamma is -1; expected a number at least 0; pass one."),
    ("focal_loss", (LOGITS, LABELS), {"gamma": NAN}, ValueError,
     "focal_loss: gamma is nan; expected a number at least 0; pass one."),
    ("focal_loss", (LOGITS, LABELS), {"gamma": None}, TypeError,
     "focal_loss: gamma is a NoneType; expected a number; pass a Python float."),
    ("poly_loss_cross_entropy", (LOGITS, LABELS), {"epsilon": -1.5}, ValueError,
     "poly_loss_cross_entropy: epsilon is -1.5; expected a number at least -1; pass one."),
    ("poly_loss_cross_entropy", (LOGITS, LABELS), {"epsilon": NAN}, ValueError,
     "poly_loss_cross_entropy: epsilon is nan; expected a number at least -1; pass one."),
    ("poly_loss_cross_entropy", (LOGITS, LABELS), {"epsilon": Bool(())}, TypeError,
     "poly_loss_cross_entropy: epsilon has dtype {bool}; expected a number; pass a Python float."),
    # reduction, normalizer, dtype
    ("cross_entropy", (LOGITS, LABELS), {"reduction": "average"}, ValueError,
     "cross_entropy: reduction is 'average'; expected one of 'none', 'mean', 'sum'; pass one of "
     "them."),
    ("focal_loss", (LOGITS, LABELS), {"reduction": None}, ValueError,
     "focal_loss: reduction is None; expected one of 'none', 'mean', 'sum'; pass one of them."),
    ("cross_entropy", (LOGITS, LABELS), {"reduction": Float((8, 10))}, ValueError,
     "cross_entropy: reduction is a {array}; expected one of 'none', 'mean', 'sum'; pass one of "
     "them."),
    ("cross_entropy", (LOGITS, LABELS), {"normalizer": "rows"}, ValueError,
     "cross_entropy: normalizer is 'rows'; expected one of 'weight', 'count', 'batch'; pass one of "
     "them."),
    ("cross_entropy", (LOGITS, LABELS), {"normalizer": True}, TypeError,
     "cross_entropy: normalizer has dtype {bool}; expected a positive number; pass the count to "
     "divide the sum by."),
    ("cross_entropy", (LOGITS, LABELS), {"normalizer": 0}, ValueError,
     "cross_entropy: normalizer is 0; expected a positive number; pass the count to divide the sum "
     "by."),
    ("focal_loss", (LOGITS, LABELS), {"normalizer": NAN}, ValueError,
     "focal_loss: normalizer is nan; expected a positive number; pass the count to divide the sum "
     "by."),
    ("focal_loss", (LOGITS, LABELS), {"normalizer": np.float64(0.0)}, ValueError,
     "focal_loss: normalizer is 0.0; expected a positive number; pass the count to divide the sum "
     "by."),
    ("cross_entropy", (LOGITS, LABELS), {"normalizer": Float((8,))}, ValueError,
     "cross_entropy: normalizer has shape (8,); expected a number or a 0-d array; pass one number "
     "for the whole loss."),
    ("focal_loss", (LOGITS, LABELS), {"normalizer": Bool(())}, TypeError,
     "focal_loss: normalizer has dtype {bool}; expected a positive number; pass the count to "
     "divide the sum by."),
    ("cross_entropy", (LOGITS, LABELS), {"normalizer": Complex(())}, TypeError,
     f"cross_entropy: normalizer has dtype {{complex}}; {REAL}"),
    ("cross_entropy", (LOGITS, LABELS), {"normalizer": 8, "reduction": "sum"}, ValueError,
     "cross_entropy: normalizer is given with reduction='sum'; expected reduction='mean', which it "
     "divides; leave one of the two out."),
    ("cross_entropy", (LOGITS, LABELS), {"normalizer": {8}}, TypeError,
     f"cross_entropy: normalizer is a set; expected {LIBRARIES}; convert it to one of those."),
    ("focal_loss", (LOGITS, LABELS), {"dtype": "bool"}, TypeError,
     f"focal_loss: dtype is 'bool'; {FLOATING}"),
]

BINARY_LOSSES = [
    ("binary_cross_entropy", (Int((4,)), Int((4,))), {}, TypeError,
     "binary_cross_entropy: logits has dtype {int}; expected a floating dtype; convert it, and "
     "check that logits come before targets."),
    ("binary_cross_entropy", (Float((4,)), None), {}, TypeError,
     "binary_cross_entropy: targets is None; expected probabilities or 0 and 1; pass them."),
    ("binary_cross_entropy", (Float((4, 3)), Int((4,))), {}, ValueError,
     "binary_cross_entropy: targets has shape (4,); expected (4, 3), the logits' shape: one "
     "probability for each logit; reshape it, or one_hot the labels."),
    ("sigmoid_focal_loss", (Float((4,)), Float((4, 1))), {}, ValueError,
     "sigmoid_focal_loss: targets has shape (4, 1); expected (4,), the logits' shape: one "
     "probability for each logit; reshape it, or one_hot the labels."),
    ("sigmoid_focal_loss", (Float((4,)), Complex((4,))), {}, TypeError,
     f"sigmoid_focal_loss: targets has dtype {{complex}}; {REAL}"),
    ("binary_cross_entropy", (Float((4, 3)), Float((4, 3))), {"pos_weight": Float((4,))},
     ValueError,
     "binary_cross_entropy: pos_weight has shape (4,); expected one that broadcasts to the shape "
     "of logits, (4, 3); reshape it."),
    ("binary_cross_entropy", (Float((4,)), Float((4,))), {"pos_weight": Complex(())}, TypeError,
     f"binary_cross_entropy: pos_weight has dtype {{complex}}; {REAL}"),
    ("binary_cross_entropy", (Float((4,)), Float((4,))), {"pos_weight": "2"}, TypeError,
     f"binary_cross_entropy: pos_weight is a str; expected {LIBRARIES}; convert it to one of "
     "those."),
    ("binary_cross_entropy", (Float((4, 3)), Float((4, 3))), {"pos_weight": [[]]}, ValueError,
     "binary_cross_entropy: pos_weight has shape (1, 0); expected one that broadcasts to the shape "
     "of logits, (4, 3); reshape it."),
    ("sigmoid_focal_loss", (Float((4,)), Float((4,))), {"sample_weight": Float((3,))}, ValueError,
     "sigmoid_focal_loss: sample_weight has shape (3,); expected one that broadcasts to the shape "
     "of logits, (4,); reshape it."),
    ("binary_cross_entropy", (Float((4,)), Float((4,))), {"label_smoothing": 2}, ValueError,
     "binary_cross_entropy: label_smoothing is 2; expected a number in [0, 1]; pass one."),
    ("sigmoid_focal_loss", (Float((4,)), Float((4,))), {"gamma": -0.5}, ValueError,
     "sigmoid_focal_loss: gamma is -0.5; expected a number at least 0; pass one."),
    ("sigmoid_focal_loss", (Float((4,)), Float((4,))), {"alpha": 1.25}, ValueError,
     "sigmoid_focal_loss: alpha is 1.25; expected a number in [0, 1]; pass one."),
    ("sigmoid_focal_loss", (Float((4,)), Float((4,))), {"alpha": -1}, ValueError,
     "sigmoid_focal_loss: alpha is -1; expected a number in [0, 1]; pass one."),
    ("sigmoid_focal_loss", (Float((4,)), Float((4,))), {"alpha": Float((4,))}, TypeError,
     "sigmoid_focal_loss: alpha is a {array} of shape (4,); expected a number or a 0-d array; pass "
     "a Python float."),
    ("sigmoid_focal_loss", (Float((4,)), Float((4,))), {"alpha": Complex(())}, TypeError,
     "sigmoid_focal_loss: alpha has dtype {complex}; expected a number; pass a Python float."),
    ("binary_cross_entropy", (Float((4,)), Float((4,))), {"reduction": 1}, ValueError,
     "binary_cross_entropy: reduction is 1; expected one of 'none', 'mean', 'sum'; pass one of "
     "them."),
    ("binary_cross_entropy", (Float((4,)), Float((4,))), {"normalizer": -4.0}, ValueError,
     "binary_cross_entropy: normalizer is -4.0; expected a positive number; pass the count to "
     "divide the sum by."),
    ("sigmoid_focal_loss", (Float((4,)), Float((4,))), {"normalizer": 4, "reduction": "none"},
     ValueError,
     "sigmoid_focal_loss: normalizer is given with reduction='none'; expected reduction='mean', "
     "which it divides; leave one of the two out."),
    ("sigmoid_focal_loss", (Float((4,)), Float((4,))), {"dtype": "int8"}, TypeError,
     f"sigmoid_focal_loss: dtype is 'int8'; {FLOATING}"),
]

HIDDEN, MATRIX = Float((8, 4)), Float((10, 4))
LINEAR = [
    ("linear_cross_entropy", (Int((8, 4)), MATRIX, LABELS), {}, TypeError,
     "linear_cross_entropy: hidden has dtype {int}; expected a floating dtype; convert it, and "
     "check that hidden and weight_matrix come before targets."),
    ("linear_cross_entropy", (HIDDEN, Int((8,)), MATRIX), {}, TypeError,
     "linear_cross_entropy: weight_matrix has dtype {int}; expected a floating dtype; convert it, "
     "and check that hidden and weight_matrix come before targets."),
    ("linear_cross_entropy", (HIDDEN, None, LABELS), {}, TypeError,
     "linear_cross_entropy: weight_matrix is None; expected a floating array (V, D); pass it."),
    ("linear_cross_entropy", (Float(()), MATRIX, LABELS), {}, ValueError,
     "linear_cross_entropy: hidden has shape (); expected (..., D), a vector for each row; reshape "
     "it."),
    ("linear_cross_entropy", (Float((8, 0)), Float((10, 0)), LABELS), {}, ValueError,
     "linear_cross_entropy: hidden has shape (8, 0); expected (..., D), a vector for each row; "
     "reshape it."),
    ("linear_cross_entropy", (HIDDEN, Float((4, 10)), LABELS), {}, ValueError,
     "linear_cross_entropy: weight_matrix has shape (4, 10); expected (V, 4), a vector for each "
     "class, beside hidden (8, 4); transpose it if it is (D, V)."),
    ("linear_cross_entropy", (HIDDEN, MATRIX, LABELS), {"bias": Float((4,))}, ValueError,
     "linear_cross_entropy: bias has shape (4,); expected (10,), one number for each class of "
     "weight_matrix (10, 4); reshape it."),
    ("linear_cross_entropy", (HIDDEN, MATRIX, Int([0, 1, 2, 3, 4, 5, 6, 10])), {}, IndexError,
     "linear_cross_entropy: targets[7] is 10; expected a class index in [0, 10) or ignore_index "
     "-100; correct the label, or mark the row with ignore_index."),
    ("linear_cross_entropy", (HIDDEN, MATRIX, LABELS), {"softcap": "30"}, TypeError,
     "linear_cross_entropy: softcap is '30'; expected a positive number; pass a Python float, or "
     "None for no cap."),
    ("linear_cross_entropy", (HIDDEN, MATRIX, LABELS), {"softcap": 0.0}, ValueError,
     "linear_cross_entropy: softcap is 0.0; expected a positive number; pass one, or None for no "
     "cap."),
    ("linear_cross_entropy", (HIDDEN, MATRIX, LABELS), {"chunk_size": 0}, ValueError,
     "linear_cross_entropy: chunk_size is 0; expected an int of at least 1; pass how many rows, or "
     "a pair, how many rows and classes, or None."),
    ("linear_cross_entropy", (HIDDEN, MATRIX, LABELS), {"chunk_size": (4, 1.5)}, TypeError,
     "linear_cross_entropy: chunk_size is 1.5; expected an int of at least 1; pass how many rows, "
     "or a pair, how many rows and classes, or None."),
    ("linear_cross_entropy", (HIDDEN, MATRIX, LABELS), {"outputs": "entropy"}, ValueError,
     "linear_cross_entropy: outputs is 'entropy'; expected one of 'loss', 'all'; pass one "
     "of them."),
    ("linear_cross_entropy", (HIDDEN, MATRIX, LABELS), {"where": Bool((8, 10))}, ValueError,
     "linear_cross_entropy: where has shape (8, 10); expected one that broadcasts to the shape of "
     "the classes, (10,); reshape it."),
    ("linear_cross_entropy", (HIDDEN, MATRIX, LABELS), {"temperature": Float((3,))}, ValueError,
     "linear_cross_entropy: temperature has shape (3,); expected one that broadcasts to the shape "
     "of the rows, (8,); reshape it."),
]

LABELS_CALLS = [
    ("one_hot", (Float((3,)), 3), {}, TypeError,
     "one_hot: labels has dtype {float}; expected integers; convert it with astype."),
    ("one_hot", (Bool((3,)), 3), {}, TypeError,
     "one_hot: labels has dtype {bool}; expected integers; convert it with astype."),
    ("one_hot", (Int((3,)), 3.0), {}, TypeError,
     "one_hot: num_classes is 3.0; expected an int of at least 1; "
     "pass the number of classes."),
    ("one_hot", (Int((3,)), True), {}, TypeError,
     "one_hot: num_classes is True; expected an int of at least 1; "
     "pass the number of classes."),
    ("one_hot", (Int((3,)), None), {}, TypeError,
     "one_hot: num_classes is None; expected an int of at least 1; "
     "pass the number of classes."),
    ("one_hot", (3, Int((8, 10))), {}, TypeError,
     "one_hot: num_classes is a {array}; expected an int of at least 1; "
     "pass the number of classes."),
    ("one_hot", (Int((3,)), 0), {}, ValueError,
     "one_hot: num_classes is 0; expected an int of at least 1; "
     "pass the number of classes."),
    ("one_hot", (Int([0, 1, 2]), 2), {}, IndexError,
     "one_hot: labels[2] is 2; expected a class index in [0, 2); correct the label."),
    ("one_hot", (Int([0, -1]), 2), {}, IndexError,
     "one_hot: labels[1] is -1; expected a class index in [0, 2); correct the label."),
    ("one_hot", (Of("int8", [0, -100]), 300), {}, IndexError,  # 156 as an unsigned number
     "one_hot: labels[1] is -100; expected a class index in [0, 300); correct the label."),
    ("one_hot", (Int((3,)), 3), {"axis": 2}, AxisError,
     "one_hot: axis is 2; expected an axis of a 2-d array, from -2 to 1; pass one of those."),
    ("one_hot", (Int((3,)), 3), {"axis": None}, TypeError,
     "one_hot: axis is None; expected an int; pass one, such as -1."),
    ("one_hot", (Int((3,)), 3), {"dtype": "int64"}, TypeError,
     f"one_hot: dtype is 'int64'; {FLOATING}"),
    ("smooth_labels", (Bool((3,)), 0.1), {"num_classes": 3}, TypeError,
     "smooth_labels: targets has dtype {bool}; expected integers for class indices or floats for "
     "probabilities; convert it to one of those."),
    ("smooth_labels", (Complex((3,)), 0.1), {}, TypeError,
     f"smooth_labels: targets has dtype {{complex}}; {REAL}"),
    ("smooth_labels", (Int((3,)), 0.1), {}, ValueError,
     "smooth_labels: num_classes is None; expected an int for class indices; pass the number of "
     "classes."),
    ("smooth_labels", (Int((3,)), 0.1), {"num_classes": 0}, ValueError,
     "smooth_labels: num_classes is 0; expected an int of at least 1; "
     "pass the number of classes."),
    ("smooth_labels", (Int((3,)), 0.1), {"num_classes": 3.0}, TypeError,
     "smooth_labels: num_classes is 3.0; expected an int of at least 1; "
     "pass the number of classes."),
    ("smooth_labels", (Float((2, 3)), 0.1), {"num_classes": "3"}, TypeError,
     "smooth_labels: num_classes is '3'; expected an int of at least 1; "
     "pass the number of classes."),
    ("smooth_labels", (Int([0, 3]), 0.1), {"num_classes": 3}, IndexError,
     "smooth_labels: targets[1] is 3; expected a class index in [0, 3); correct the label."),
    ("smooth_labels", (Float((2, 3)), 0.1), {"num_classes": 4}, ValueError,
     "smooth_labels: num_classes is 4; expected 3, the length of axis 1 of targets; leave it out "
     "for probabilities."),
    ("smooth_labels", (Float((2, 3)), 1.1), {}, ValueError,
     "smooth_labels: smoothing is 1.1; expected a number in [0, 1]; pass one."),
    ("smooth_labels", (Float((2, 3)), "0.1"), {}, TypeError,
     "smooth_labels: smoothing is a str; expected a number; pass a Python float."),
    ("smooth_labels", (Float((2, 3)), Bool(())), {}, TypeError,
     "smooth_labels: smoothing has dtype {bool}; expected a number; pass a Python float."),
    ("smooth_labels", (Float((2, 3)), 0.1), {"axis": 2}, AxisError,
     "smooth_labels: axis is 2; expected an axis of a 2-d array, from -2 to 1; pass one of those."),
    ("smooth_labels", (Float(()), 0.1), {}, AxisError,
     "smooth_labels: targets is 0-d, and axis is -1; expected an array with a class axis; pass one "
     "with at least one axis."),
    ("smooth_labels", (Float((2, 3)), 0.1), {"where": Int((3,))}, TypeError,
     "smooth_labels: where has dtype {int}; expected bool, True where an entry takes part; compare "
     "it (where != 0)."),
    ("smooth_labels", (Float((2, 3)), 0.1), {"where": Bool((2,))}, ValueError,
     "smooth_labels: where has shape (2,); expected one that broadcasts to the shape of targets, "
     "(2, 3); reshape it."),
]

THREADS = [
    ("set_num_threads", ("2",), {}, TypeError,
     "set_num_threads: number is '2'; expected an int of at least 1; 1 is the caller alone."),
    ("set_num_threads", (True,), {}, TypeError,
     "set_num_threads: number is True; expected an int of at least 1; 1 is the caller alone."),
    ("set_num_threads", (2.0,), {}, TypeError,
     "set_num_threads: number is 2.0; expected an int of at least 1; 1 is the caller alone."),
    ("set_num_threads", (None,), {}, TypeError,
     "set_num_threads: number is None; expected an int of at least 1; 1 is the caller alone."),
    ("set_num_threads", (0,), {}, ValueError,
     "set_num_threads: number is 0; expected an int of at least 1; 1 is the caller alone."),
]

SCORES = Float([[2, 1, 0], [0, 1, 2]])
# Of softmaxkit.calibration. What is being traced is refused there: values are needed.
CALIBRATION = [
    ("fit_temperature", (None, LABELS), {}, TypeError,
     f"fit_temperature: logits is a NoneType; expected {LIBRARIES}; convert it to one of those."),
    ("fit_temperature", (Int((8, 10)), LABELS), {}, TypeError,
     "fit_temperature: logits has dtype {int}; expected a floating dtype; convert it, and check "
     "that logits come before targets."),
    ("fit_temperature", (LOGITS, LABELS), {"axis": 2}, AxisError,
     "fit_temperature: axis is 2; expected an axis of a 2-d array, from -2 to 1; pass one of "
     "those."),
    ("fit_temperature", (Float((8, 0)), LABELS), {}, ValueError,
     "fit_temperature: logits has shape (8, 0); expected at least one class along axis 1; pass "
     "logits with classes."),
    ("fit_temperature", (LOGITS, None), {}, TypeError,
     "fit_temperature: labels is None; expected integers, a class index for each row; pass the "
     "index of the true class."),
    ("fit_temperature", (LOGITS, Float((8, 10))), {}, TypeError,
     "fit_temperature: labels has dtype {float}; expected integers, a class index for each row; "
     "pass the index of the true class."),
    ("fit_temperature", (LOGITS, Int((8, 10))), {}, ValueError,
     "fit_temperature: labels has shape (8, 10); expected (8,) for class indices along axis -1 of "
     "logits (8, 10); pass its argmax if it is a one-hot matrix."),
    ("fit_temperature", (LOGITS, Int((8, 1))), {}, ValueError,
     "fit_temperature: labels has shape (8, 1); expected (8,) for class indices along axis -1 of "
     "logits (8, 10); squeeze it."),
    ("fit_temperature", (SCORES, [0, 3]), {}, IndexError,
     "fit_temperature: labels[1] is 3; expected a class index in [0, 3) or ignore_index -100; "
     "correct the label, or mark the row with ignore_index."),
    ("fit_temperature", (SCORES, [0, 1]), {"sample_weight": Float([1, -1])}, ValueError,
     "fit_temperature: sample_weight holds a number below 0, NaN or inf; expected finite numbers "
     "of at least 0; leave rows out with 0."),
    ("fit_temperature", (SCORES, [-100, -100]), {}, ValueError,
     "fit_temperature: logits has shape (2, 3), and none of its rows counts; "
     "expected at least one that does; check ignore_index and sample_weight."),
    ("fit_temperature", (Float((0, 10)), Int((0,))), {}, ValueError,
     "fit_temperature: logits has shape (0, 10), and none of its rows counts; "
     "expected at least one that does; check ignore_index and sample_weight."),
    ("aurc", (Float((0, 10)), Int((0,))), {}, ValueError,
     "aurc: logits has shape (0, 10), and none of its rows counts; "
     "expected at least one that does; check ignore_index and sample_weight."),
    ("fit_temperature", (Float([[NAN, 1], [0, 1]]), [0, 1]), {}, ValueError,
     "fit_temperature: logits holds NaN or inf; expected finite logits in the rows that count; "
     "leave the others out with ignore_index."),
    ("fit_temperature", (Float([[INF, 1], [0, 1]]), [0, 1]), {}, ValueError,
     "fit_temperature: logits holds NaN or inf; expected finite logits in the rows that count; "
     "leave the others out with ignore_index."),
    ("fit_temperature", (Float([[-INF, 1], [0, 1]]), [0, 1]), {}, ValueError,
     "fit_temperature: logits holds -inf for the class of a label, or that class is masked; "
     "expected finite logits in the rows that count; leave the others out with ignore_index."),
    ("confidence", (LOGITS, "certainty"), {}, ValueError,
     "confidence: kind is 'certainty'; expected one of 'probability', 'margin', 'entropy', "
     "'energy'; pass one of them."),
    ("confidence", (LOGITS,), {"temperature": Float((8, 10))}, ValueError,
     "confidence: temperature has shape (8, 10); expected one that broadcasts to the shape of the "
     "rows, (8,); reshape it."),
    ("classify", (LOGITS,), {"threshold": "0.5"}, TypeError,
     "classify: threshold is '0.5'; expected a number; pass a Python float."),
    ("classify", (LOGITS,), {"threshold": NAN}, ValueError,
     "classify: threshold is nan; expected a number; pass a Python float."),
    ("classify", (LOGITS,), {"reject": None}, TypeError,
     "classify: reject is None; expected an int; pass a label that no class has, such as -1."),
    ("calibration_error", (LOGITS, LABELS), {"from_logits": 1}, TypeError,
     "calibration_error: from_logits is 1; expected True or False; pass one of them."),
    ("calibration_error", (LOGITS, LABELS), {"from_logits": False, "temperature": 2.0}, ValueError,
     "calibration_error: temperature is given with from_logits=False; expected logits, which it "
     "divides; pass logits, or leave one of the two out."),
    ("calibration_error", (SCORES, [0, 1]), {"from_logits": False}, ValueError,
     "calibration_error: scores holds 2; expected probabilities in [0, 1] beside "
     "from_logits=False; pass from_logits=True if they are logits."),
    ("brier_score", (SCORES, [0, 1]), {"from_logits": False}, ValueError,
     "brier_score: scores holds 2; expected probabilities in [0, 1] beside from_logits=False; pass "
     "from_logits=True if they are logits."),
    ("reliability", (Float([[NAN, 1], [0, 1]]), [0, 1]), {}, ValueError,
     "reliability: scores holds NaN or inf; expected finite scores in the rows that count; leave "
     "the others out with ignore_index."),
    ("brier_score", (SCORES, [0, 1]), {"sample_weight": [1.0, NAN]}, ValueError,
     "brier_score: sample_weight holds a number below 0, NaN or inf; expected finite numbers of at "
     "least 0; leave rows out with 0."),
    ("brier_score", (SCORES, [0, 1]), {"sample_weight": [0, 0]}, ValueError,
     "brier_score: scores has shape (2, 3), and none of its rows counts; "
     "expected at least one that does; check ignore_index and sample_weight."),
    ("calibration_error", (LOGITS, LABELS), {"bins": 0}, ValueError,
     "calibration_error: bins is 0; expected an int of at least 1; 15 is usual."),
    ("calibration_error", (LOGITS, LABELS), {"binning": "equal"}, ValueError,
     "calibration_error: binning is 'equal'; expected one of 'width', 'mass'; pass one of them."),
    ("reliability", (LOGITS, LABELS), {"of": "all"}, ValueError,
     "reliability: of is 'all'; expected one of 'top', 'class'; pass one of them."),
    ("calibration_error", (LOGITS, LABELS), {"norm": 1}, ValueError,
     "calibration_error: norm is 1; expected one of 'l1', 'l2', 'max'; pass one of them."),
    ("calibration_error", (LOGITS, LABELS), {"interval": 95}, ValueError,
     "calibration_error: interval is 95; expected a number between 0 and 1; pass one such as "
     "0.95."),
    ("calibration_error", (LOGITS, LABELS), {"interval": 0.9, "resamples": 0}, ValueError,
     "calibration_error: resamples is 0; expected an int of at least 1; 1000 is usual."),
    ("risk_coverage", (Float([[NAN, 1], [0, 1]]), [0, 1]), {}, ValueError,
     "risk_coverage: logits holds NaN or inf; expected finite logits in the rows that count; leave "
     "the others out with ignore_index."),
    ("aurc", (LOGITS, LABELS), {"kind": "p"}, ValueError,
     "aurc: kind is 'p'; expected one of 'probability', 'margin', 'entropy', 'energy'; pass one of "
     "them."),
    ("threshold_for", (LOGITS, LABELS), {}, ValueError,
     "threshold_for: coverage is None and max_risk is None; expected one of the two; leave the "
     "other out."),
    ("threshold_for", (LOGITS, LABELS), {"coverage": 0.5, "max_risk": 0.1}, ValueError,
     "threshold_for: coverage is 0.5 and max_risk is 0.1; expected one of the two; leave the other "
     "out."),
    ("threshold_for", (LOGITS, LABELS), {"coverage": 0}, ValueError,
     "threshold_for: coverage is 0; expected a number in (0, 1]; pass a share."),
    ("threshold_for", (LOGITS, LABELS), {"max_risk": 5}, ValueError,
     "threshold_for: max_risk is 5; expected a number in [0, 1]; pass a share."),
    ("conformal_threshold", (LOGITS, LABELS), {"error_rate": 1}, ValueError,
     "conformal_threshold: error_rate is 1; expected a number between 0 and 1; pass how often the "
     "label may be missing."),
    ("prediction_sets", (LOGITS, None), {}, TypeError,
     "prediction_sets: threshold is None; expected a number; pass a Python float."),
    ("straight_through", (Int((2, 3)),), {}, TypeError,
     "straight_through: x has dtype {int}; expected a floating dtype; convert it, and check that "
     "logits come before targets."),
]
# fmt: on

ROWS = TYPES + ACTIVATIONS + VJP + CLASS_LOSSES + BINARY_LOSSES + LINEAR + LABELS_CALLS + THREADS


def called(name):
    """Return the function of that name; "vjp(softmax)" is one, too."""
    outer, _, inner = name.removesuffix(")").partition("(")
    function = getattr(softmaxkit, outer, None) or getattr(calibration, outer)
    return function(getattr(softmaxkit, inner)) if inner else function


def built(argument, library):
    """Put an array of the library where `Of` stands for one."""
    if not isinstance(argument, Of):
        return argument
    value = np.zeros(argument.value) if isinstance(argument.value, tuple) else argument.value
    return library.array(value, argument.dtype)


def names(library):
    """Return what messages call this library, its arrays and its dtypes."""
    arrays = {name: library.array([0], dtype) for name, dtype in DTYPES.items()}
    array = type(arrays["float"])
    arrays["complex128"] = library.array([0], "complex128")
    return {name: str(one.dtype) for name, one in arrays.items()} | {
        "library": library.backend.LIBRARY,
        "array": f"{array.__module__.partition('.')[0]}.{array.__qualname__}",
    }
