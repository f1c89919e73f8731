//! Money.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// An amount of money in cents: a balance, or what is transferred. At most [`Cents::MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cents(u64);

impl Cents {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The largest amount and the largest balance. It fits into a signed 64-bit number, so that whoever reads it
    /// in another language does not get a negative one.
    pub const MAX: Self = Self(i64::MAX as u64);

    /// The amount of so many cents, if it is not too large.
    pub const fn new(cents: u64) -> Option<Self> {
        if cents <= Self::MAX.0 {
            Some(Self(cents))
        } else {
            None
        }
    }

    /// How many cents.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The sum, if it is not too large.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).and_then(Self::new)
    }

    /// The difference, if it is not negative.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }
}

impl fmt::Display for Cents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

/// A text that is not an amount to transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AmountError {
    /// Below zero.
    #[error("is negative; an amount is positive, and the direction is given by from and to")]
    Negative,
    /// Zero.
    #[error("is zero; the smallest amount is 0.01")]
    Zero,
    /// More than can be written down.
    #[error("is too large; the largest amount is {}", Cents::MAX)]
    TooLarge,
    /// Fractions of a cent.
    #[error("has more than two decimal places; there is nothing smaller than a cent")]
    TooPrecise,
    /// Something else.
    #[error("is not an amount; write it like 12, 12.5 or 12.50")]
    NotAnAmount,
}

/// Reads a positive amount such as `12.50`.
impl FromStr for Cents {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        let unsigned = text.strip_prefix('-');
        let (whole, fraction) = digits(unsigned.unwrap_or(text)).ok_or(AmountError::NotAnAmount)?;
        if unsigned.is_some() {
            return Err(AmountError::Negative);
        }
        if fraction.len() > 2 {
            return Err(AmountError::TooPrecise);
        }
        // Everything is a digit, so the only thing that can go wrong is the size.
        let whole: u64 = whole.parse().map_err(|_| AmountError::TooLarge)?;
        let hundredths: u64 = format!("{fraction:0<2}")
            .parse()
            .map_err(|_| AmountError::TooLarge)?;
        let cents = whole
            .checked_mul(100)
            .and_then(|cents| cents.checked_add(hundredths));
        match cents.and_then(Self::new).ok_or(AmountError::TooLarge)? {
            Self::ZERO => Err(AmountError::Zero),
            amount => Ok(amount),
        }
    }
}

/// The digits before the point and those after it, if the text is a number without a sign.
fn digits(text: &str) -> Option<(&str, &str)> {
    let (whole, fraction) = match text.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (text, ""),
    };
    let plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    (!whole.is_empty() && plain(whole) && plain(fraction)).then_some((whole, fraction))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_printed() {
        let cases = [
            ("12.50", 1250, "12.50"),
            ("12.5", 1250, "12.50"),
            ("12", 1200, "12.00"),
            ("0.01", 1, "0.01"),
            ("007.10", 710, "7.10"),
            ("92233720368547758.07", i64::MAX as u64, "92233720368547758.07"),
        ];
        for (text, cents, printed) in cases {
            let amount: Cents = text.parse().unwrap();
            assert_eq!((amount.get(), amount.to_string().as_str()), (cents, printed));
        }
    }

    #[test]
    fn what_is_not_an_amount_is_refused_with_the_reason() {
        let cases = [
            (AmountError::Negative, vec!["-5", "-0.01", "-0", "-1.234"]),
            (AmountError::Zero, vec!["0", "0.0", "0.00", "000"]),
            (
                AmountError::TooLarge,
                vec![
                    "92233720368547758.08",
                    "184467440737095516.16",
                    "184467440737095517",
                    "99999999999999999999999999999",
                ],
            ),
            (AmountError::TooPrecise, vec!["1.234", "0.001", "0.000"]),
            (
                AmountError::NotAnAmount,
                vec![
                    "", "-", "+5", ".", ".5", "5.", "1,50", "1 000", "1e3", "ten", "12.5€", "0x10", "--5",
                    "NaN", "inf", "١٢",
                ],
            ),
        ];
        for (expected, texts) in cases {
            for text in texts {
                assert_eq!(text.parse::<Cents>(), Err(expected), "{text:?}");
            }
        }
    }

    #[test]
    fn sums_and_differences_stay_in_range() {
        let one = Cents(1);
        assert_eq!(Cents::MAX.checked_add(one), None);
        assert_eq!(Cents::MAX.checked_add(Cents::ZERO), Some(Cents::MAX));
        assert_eq!(Cents::ZERO.checked_sub(one), None);
        assert_eq!(Cents::MAX.checked_sub(Cents::MAX), Some(Cents::ZERO));
    }
}
