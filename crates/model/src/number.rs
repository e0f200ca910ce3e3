//! Decimal numbers of up to 38 significant digits: DynamoDB's N (1E-130 to 9.99…E+125) and Spanner's
//! NUMERIC (29 digits before the point, 9 after it).

use minicbor::{Decode, Encode};

/// `(-1)^negative × coefficient × 10^exponent`, canonical: the coefficient has no trailing zero digits,
/// and zero is `0 × 10^0`, not negative. So equal numbers are equal structs.
/// `(-1)^negative × coefficient × 10^exponent`, canonical: the coefficient has no trailing zero digits,
/// and zero is `0 × 10^0`, not negative. So equal numbers are equal structs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Number {
    #[n(0)]
    negative: bool,
    #[n(1)]
    exponent: i32,
    /// The coefficient's high and low 64 bits.
    #[n(2)]
    high: u64,
    #[n(3)]
    low: u64,
}
