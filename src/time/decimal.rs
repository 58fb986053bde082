//! Numbers as decimal digits: a number of a JSON text is read without a float between.

/// A number in JSON's grammar as decimal digits: value = 0.DDDD × 10^point.
pub struct Decimal<'a> {
    negative: bool,
    /// The digits before and after the point, from the first digit that is not zero.
    whole: &'a [u8],
    fraction: &'a [u8],
    /// How many of the digits of `whole` and `fraction` together stand before the point.
    point: i64,
}

impl<'a> Decimal<'a> {
    /// Reads a text. `None` when `text` is not exactly one JSON number.
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        let (negative, rest) = match text {
            [b'-', rest @ ..] => (true, rest),
            _ => (false, text),
        };
        let (mut whole, rest) = split_digits(rest);
        if whole.is_empty() || (whole.len() > 1 && whole.first() == Some(&b'0')) {
            return None;
        }
        let (mut fraction, rest) = match rest {
            [b'.', rest @ ..] => {
                let (digits, rest) = split_digits(rest);
                if digits.is_empty() {
                    return None;
                }
                (digits, rest)
            }
            _ => (&[][..], rest),
        };
        let exponent = match rest {
            [] => 0,
            [b'e' | b'E', rest @ ..] => {
                let (minus, rest) = match rest {
                    [b'-', rest @ ..] => (true, rest),
                    [b'+', rest @ ..] => (false, rest),
                    _ => (false, rest),
                };
                let (digits, rest) = split_digits(rest);
                if digits.is_empty() || !rest.is_empty() {
                    return None;
                }
                let size = digits.iter().fold(0i64, |size, digit| {
                    // The cap is far past every exponent that matters, and far from overflowing.
                    (size * 10 + i64::from(digit - b'0')).min(1 << 50)
                });
                if minus { -size } else { size }
            }
            _ => return None,
        };
        let mut point = exponent;
        if whole == b"0" {
            whole = &[];
            let zeros = leading_zeros(fraction);
            fraction = fraction.get(zeros..).unwrap_or_default();
            point -= i64::try_from(zeros).unwrap_or(i64::MAX >> 2);
        } else {
            point += i64::try_from(whole.len()).unwrap_or(i64::MAX >> 2);
        }
        if whole.is_empty() && fraction.is_empty() {
            point = 0;
        }
        Some(Self {
            negative,
            whole,
            fraction,
            point,
        })
    }

    /// How many digits stand before the point; zero or less for numbers below one.
    pub(super) fn integer_digits(&self) -> i64 {
        self.point
    }

    fn digits(&self) -> impl Iterator<Item = u8> + '_ {
        self.whole
            .iter()
            .chain(self.fraction)
            .map(|digit| digit - b'0')
    }

    /// The absolute value × 10^shift without its fraction, and whether the fraction was anything but zeros. `None`
    /// where the result has more than 38 digits.
    fn scaled(&self, shift: i64) -> Option<(i128, bool)> {
        let places = self.point.saturating_add(shift);
        if places > 38 && self.digits().next().is_some() {
            return None;
        }
        let places = usize::try_from(places).unwrap_or(0).min(38);
        let mut value: i128 = 0;
        let mut taken = 0;
        let mut digits = self.digits();
        while taken < places {
            value = value * 10 + i128::from(digits.next().unwrap_or(0));
            taken += 1;
        }
        Some((value, digits.any(|digit| digit != 0)))
    }

    /// The greatest integer that is not above value × 10^shift; `None` when it has more than 38 digits.
    pub(super) fn floor(&self, shift: i64) -> Option<i128> {
        let (value, cut) = self.scaled(shift)?;
        Some(match (self.negative, cut) {
            (false, _) => value,
            (true, false) => -value,
            (true, true) => -value - 1,
        })
    }

    /// The number as the unscaled value of a decimal of `precision` and `scale`, rounded to the nearest; halves are
    /// rounded away from zero, as by Hive, Spark and Athena. `None` where the result has too many digits.
    pub fn rounded(&self, precision: u8, scale: u8) -> Option<i128> {
        // One more digit says whether the rest is half or more. No digit behind it can change that.
        let (value, _) = self.scaled(i64::from(scale))?;
        let next = self.digits().nth(
            usize::try_from(self.point.saturating_add(i64::from(scale))).unwrap_or(usize::MAX),
        );
        let value = value + i128::from(next.is_some_and(|digit| digit >= 5));
        if value >= 10i128.checked_pow(u32::from(precision))? {
            return None;
        }
        Some(if self.negative { -value } else { value })
    }

    /// The number as the unscaled value of a decimal of `precision` and `scale`. `None` where it does not fit
    /// exactly.
    pub fn exact(&self, precision: u8, scale: u8) -> Option<i128> {
        let (value, cut) = self.scaled(i64::from(scale))?;
        if cut || value >= 10i128.checked_pow(u32::from(precision))? {
            return None;
        }
        Some(if self.negative { -value } else { value })
    }
}

/// The leading digits, and the rest.
pub(super) fn split_digits(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text
        .iter()
        .position(|byte| !byte.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(end)
}

fn leading_zeros(digits: &[u8]) -> usize {
    digits
        .iter()
        .position(|digit| *digit != b'0')
        .unwrap_or(digits.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn halves_are_rounded_away_from_zero() {
        for (text, precision, scale, expected) in [
            ("19.999", 10, 2, Some(2000)),
            ("0.30000000000000004", 10, 2, Some(30)),
            ("0.005", 10, 2, Some(1)),
            ("-0.005", 10, 2, Some(-1)),
            ("0.0049999999999", 10, 2, Some(0)),
            ("2.5", 1, 0, Some(3)),
            ("-2.5", 1, 0, Some(-3)),
            ("0.5", 1, 0, Some(1)),
            ("0.05", 1, 0, Some(0)),
            ("5e-3", 10, 2, Some(1)),
            ("0.000005", 10, 2, Some(0)),
            ("9.99", 2, 1, None),
            ("99.94", 3, 1, Some(999)),
            ("0e9", 3, 1, Some(0)),
            ("1e-99999999999999999999", 3, 1, Some(0)),
        ] {
            let read = Decimal::parse(text.as_bytes())
                .unwrap()
                .rounded(precision, scale);
            assert_eq!(read, expected, "{text}");
        }
    }

    #[test]
    fn decimals_are_exact() {
        for (text, precision, scale, expected) in [
            ("12.34", 4, 2, Some(1234)),
            ("12.340", 4, 2, Some(1234)),
            ("12.345", 6, 2, None),
            ("123.45", 4, 2, None),
            ("-0.05", 2, 2, Some(-5)),
            ("5e-2", 2, 2, Some(5)),
            ("1e2", 3, 0, Some(100)),
            ("1e3", 3, 0, None),
            ("0e999", 1, 0, Some(0)),
            (
                "99999999999999999999999999999999999999",
                38,
                0,
                Some(10i128.pow(38) - 1),
            ),
            ("100000000000000000000000000000000000000", 38, 0, None),
            ("0.00000000000000000000000000000000000001", 38, 38, Some(1)),
        ] {
            let read = Decimal::parse(text.as_bytes())
                .unwrap()
                .exact(precision, scale);
            assert_eq!(read, expected, "{text}");
        }
    }
}
