//! Temporary: until model::Number has its arithmetic.
use model::Number;
#[derive(Debug)]
#[allow(dead_code)]
pub enum NumberError { Overflow, Underflow, Other }
pub trait Shim: Sized {
    fn add(self, other: Number) -> Result<Number, NumberError>;
    fn subtract(self, other: Number) -> Result<Number, NumberError>;
    fn digit_count(&self) -> u32;
    fn magnitude(&self) -> i32;
    fn is_negative(&self) -> bool;
    fn cmp(&self, other: &Number) -> std::cmp::Ordering;
    fn from(value: i64) -> Number;
}
impl Shim for Number {
    fn add(self, _: Number) -> Result<Number, NumberError> { Err(NumberError::Other) }
    fn subtract(self, _: Number) -> Result<Number, NumberError> { Err(NumberError::Other) }
    fn digit_count(&self) -> u32 { 1 }
    fn magnitude(&self) -> i32 { 1 }
    fn is_negative(&self) -> bool { false }
    fn cmp(&self, _: &Number) -> std::cmp::Ordering { std::cmp::Ordering::Equal }
    fn from(_: i64) -> Number { Number::default() }
}
