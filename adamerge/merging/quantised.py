"""Task vectors in 8, 4 or 3 bits an entry: asymmetric min-max quantisation, per tensor and expert (TVQ, ICCV 2025).

    step = (max - min) / (2^bits - 1),  code = round(tau / step) + zero,  tau ~ step (code - zero)

`zero`, a whole number, is the code of 0, and 0 counts among the entries when min and max are taken: what an expert did
not change stays unchanged to the bit (LoRA, pruning). No other entry is off by more than half a step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# By name: torch's stubs leave out the types that have no kernels.
INT8, INT4, INT3 = (getattr(torch, f"int{bits}") for bits in (8, 4, 3))
BITS: dict[torch.dtype, int] = {INT8: 8, INT4: 4, INT3: 3}
_GROUP = 8  # codes fill whole bytes eight by eight, whatever their bits
# (codes, bytes) of the smallest run of codes that fills whole bytes
_WORDS = {8: (1, 1), 4: (2, 1), 3: (8, 3)}


@dataclass(frozen=True)
class Quantised:
    """One tensor's task vectors (T, numel) as codes.

    Attributes:
        codes: (T, numel / 8 rounded up, bits) bytes; those of eight codes lie in a row.
        steps: (T,) float32.
        zeros: (T,) float32, whole numbers: the code of 0.
        numel: entries of the tensor, without what fills up the last eight.
    """

    codes: Tensor
    steps: Tensor
    zeros: Tensor
    numel: int

    @classmethod
    def empty(
        cls, count: int, numel: int, dtype: torch.dtype, device: torch.device | None = None
    ) -> Quantised:
        """`count` vectors of zeros, for `put`; `dtype` is torch.int8, int4 or int3."""
        codes = torch.zeros(count, -(-numel // _GROUP), BITS[dtype], dtype=torch.uint8, device=device)
        steps, zeros = torch.zeros(2, count, device=device)
        return cls(codes, steps, zeros, numel)

    @classmethod
    def of(cls, stack: Tensor, dtype: torch.dtype) -> Quantised:
        """Vectors (T, numel), each with a step of its own."""
        made = cls.empty(len(stack), stack.shape[1], dtype, stack.device)
        for row, vector in enumerate(stack):
            made.put(row, vector)
        return made

    @property
    def bits(self) -> int:
        return self.codes.shape[2]

    @property
    def shape(self) -> torch.Size:
        """(T, numel)."""
        return torch.Size((len(self.codes), self.numel))

    @property
    def dtype(self) -> torch.dtype:
        """torch.int8, int4 or int3."""
        return next(dtype for dtype, bits in BITS.items() if bits == self.bits)

    @property
    def nbytes(self) -> int:
        return self.codes.nbytes + self.steps.nbytes + self.zeros.nbytes

    def put(self, row: int, vector: Tensor) -> None:
        """Keep a vector (numel,) as that of one expert."""
        last = 2**self.bits - 1
        low, high = vector.min().clamp(max=0.0), vector.max().clamp(min=0.0)
        step = ((high - low) / last).float()
        if step == 0.0:  # nothing but zeros
            self.codes[row], self.steps[row], self.zeros[row] = 0, 0.0, 0.0
            return
        zero = (-low / step).round()
        codes = (vector / step).round_().add_(zero).clamp_(0, last)
        self.codes[row] = _packed(codes.to(torch.uint8), self.bits)
        self.steps[row], self.zeros[row] = step, zero

    def columns(self, piece: slice) -> Tensor:
        """(T, columns) float32 of some columns, the same bits whichever are asked for together."""
        first = piece.start // _GROUP
        codes = _unpacked(self.codes[:, first : -(-piece.stop // _GROUP)])
        found = codes[:, piece.start - first * _GROUP : piece.stop - first * _GROUP]
        return found.sub_(self.zeros.unsqueeze(1)).mul_(self.steps.unsqueeze(1))

    def dense(self) -> Tensor:
        """(T, numel) float32."""
        return self.columns(slice(0, self.numel))


def as_kept(stack: Tensor, dtype: torch.dtype) -> Tensor:
    """Vectors (T, numel) with the numbers that they have when they are kept as `dtype`, rounded or quantised."""
    return Quantised.of(stack, dtype).dense() if dtype in BITS else stack.to(dtype)


def packed(stack: Tensor, dtype: torch.dtype) -> Tensor | Quantised:
    """What a rule made, (T, numel) or (1, numel), as it is kept. One vector alone is worth no few bits."""
    if dtype not in BITS:
        return stack.to(dtype)
    return Quantised.of(stack, dtype) if len(stack) > 1 else stack


def bytes_of(dtype: torch.dtype, entries: int) -> int:
    """What entries of task vectors take."""
    return -(-entries * BITS[dtype] // 8) if dtype in BITS else entries * dtype.itemsize


def _packed(codes: Tensor, bits: int) -> Tensor:
    """Codes (n,) as bytes (n / 8 rounded up, bits), the first code in the lowest bits."""
    count, size = _WORDS[bits]
    words = torch.nn.functional.pad(codes, (0, -len(codes) % _GROUP)).view(-1, count).int()
    words = (words << _shifts(bits, count, codes)).sum(dim=1, keepdim=True, dtype=torch.int32)
    return (words >> _shifts(8, size, codes) & 255).to(torch.uint8).view(-1, bits)


def _unpacked(packed: Tensor) -> Tensor:
    """Bytes (T, groups, bits) as codes (T, 8 groups), float32."""
    bits = packed.shape[2]
    count, size = _WORDS[bits]
    parts = packed.reshape(len(packed), -1, size)
    words = parts[..., 0]
    for i in range(1, size):
        words = words.int() | parts[..., i].int() << (8 * i)
    codes = torch.empty(*words.shape, count, device=packed.device)
    for i in range(count):
        codes[..., i] = words >> (bits * i) & (2**bits - 1)
    return codes.flatten(1)


def _shifts(bits: int, count: int, like: Tensor) -> Tensor:
    return torch.arange(0, bits * count, bits, dtype=torch.int32, device=like.device)
