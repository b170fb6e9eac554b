//! Floating point numbers of 16 bits.

use super::tensor::Datatype;

/// The number that 16 bits of FP16 or BF16 stand for.
pub fn widened(bits: u16, datatype: Datatype) -> f32 {
    if datatype == Datatype::Bf16 {
        return f32::from_bits(u32::from(bits) << 16);
    }
    let sign = u32::from(bits & 0x8000) << 16;
    let exponent = u32::from(bits >> 10 & 0x1f);
    let fraction = u32::from(bits & 0x03ff);
    let magnitude = match exponent {
        // Zero and the subnormal numbers are multiples of two to the power of -24.
        0 => (fraction as f32 * 2.0_f32.powi(-24)).to_bits(),
        0x1f => 0x7f80_0000 | fraction << 13,
        _ => (exponent + 112) << 23 | fraction << 13,
    };
    f32::from_bits(sign | magnitude)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kinds_of_numbers_keep_their_values() {
        for (bits, number) in [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0001, 5.960_464_5e-8),
            (0x0400, 6.103_515_6e-5),
            (0x3555, 0.333_251_95),
            (0x7c00, f32::INFINITY),
        ] {
            assert_eq!(widened(bits, Datatype::Fp16), number, "{bits:#x}");
        }
        assert!(widened(0x7e00, Datatype::Fp16).is_nan());
        assert!(widened(0x8000, Datatype::Fp16).is_sign_negative());
        assert_eq!(widened(0x4049, Datatype::Bf16), 3.140_625);
    }
}
