//! Resolves a scalar without quotes: null, a boolean, a number or text.
//!
//! In: its text. Out: the same [`Scalar`] as serde_yaml's. If the two differed, serde_yaml could refuse, or
//! read otherwise, a value that we accepted. Source: YAML 1.2.2 §10.3.

/// The meaning of a scalar without quotes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::config) enum Scalar<'t> {
    /// No value.
    Nothing,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    /// A number with a fraction, or one too large for 64 bits.
    Float(f64),
    Text(&'t str),
}

impl<'t> Scalar<'t> {
    /// Resolves `text`.
    pub fn of(text: &'t str) -> Self {
        match text {
            "" | "~" | "null" | "Null" | "NULL" => Scalar::Nothing,
            "true" | "True" | "TRUE" => Scalar::Bool(true),
            "false" | "False" | "FALSE" => Scalar::Bool(false),
            _ => number(text).unwrap_or(Scalar::Text(text)),
        }
    }
}

fn number(text: &str) -> Option<Scalar<'static>> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let all_digits = digits.bytes().all(|b| b.is_ascii_digit());
    // `02` is text: it may be meant as octal.
    if digits.starts_with(['+', '-']) || (all_digits && digits.len() > 1 && digits.starts_with('0'))
    {
        return None;
    }
    let radixes = [("0x", 16), ("0o", 8), ("0b", 2)];
    let prefixed = radixes.into_iter().find_map(|(prefix, radix)| {
        let rest = digits.strip_prefix(prefix)?;
        (!rest.starts_with(['+', '-'])).then_some((rest, radix))
    });
    let (rest, radix) = prefixed.unwrap_or((digits, 10));
    if !negative && let Ok(n) = u64::from_str_radix(rest, radix) {
        return Some(Scalar::Unsigned(n));
    }
    if negative && let Ok(n) = i64::from_str_radix(&format!("-{rest}"), radix) {
        return Some(Scalar::Signed(n));
    }
    if let Ok(large) = u128::from_str_radix(rest, radix) {
        let large = large as f64;
        return Some(Scalar::Float(if negative { -large } else { large }));
    }
    float(text, digits, negative)
}

fn float(text: &str, digits: &str, negative: bool) -> Option<Scalar<'static>> {
    if matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Some(Scalar::Float(f64::NAN));
    }
    let magnitude = match digits {
        ".inf" | ".Inf" | ".INF" => f64::INFINITY,
        _ => digits.parse().ok().filter(|n: &f64| n.is_finite())?,
    };
    Some(Scalar::Float(if negative { -magnitude } else { magnitude }))
}

#[cfg(test)]
mod tests {
    use serde_yaml::Value;

    use super::Scalar;

    /// Spellings as people and other programs write them, separated by blanks.
    const SPELLINGS: &str = "\
        ~ null Null NULL nULL none true True TRUE tRUE false False FALSE yes on off no y \
        0 -0 +0 00 02 -02 +02 0503 08 1 +1 -1 +-1 -+1 --1 ++1 1_000 1,000 0x10 0X10 \
        +0x10 -0x10 0x 0x+1 0xg 0o17 0o18 -0o17 0b11 0b12 1.5 +1.5 -1.5 1. .5 -.5 1e3 \
        1E3 1e 1e400 0e0 00.5 01e3 .inf +.inf -.inf .Inf .nan -.nan .NaN inf nan \
        infinity NaN 18446744073709551615 -9223372036854775808 \
        340282366920938463463374607431768211456 1.2.3 1:30 10.0.0.1 127.0.0.1:80 90s 8h \
        + . -1s 5% 50/s 64KiB 0s 1.2 1.20 ٣";

    /// Aim: our reader and serde_yaml see the same value. Fails if they differ on one spelling.
    #[test]
    fn every_spelling_means_what_it_means_to_the_library() {
        for text in SPELLINGS.split_whitespace() {
            let theirs: Value = serde_yaml::from_str(text).expect(text);
            let same = match (Scalar::of(text), &theirs) {
                (Scalar::Nothing, Value::Null) => true,
                (Scalar::Bool(a), Value::Bool(b)) => a == *b,
                (Scalar::Unsigned(a), Value::Number(b)) => Some(a) == b.as_u64(),
                // A negative zero is a zero of either sign.
                (Scalar::Signed(a), Value::Number(b)) => Some(a) == b.as_i64(),
                (Scalar::Float(a), Value::Number(b)) => {
                    let b = b.as_f64().expect("a number");
                    a == b || (a.is_nan() && b.is_nan())
                }
                (Scalar::Text(a), Value::String(b)) => a == b,
                _ => false,
            };
            assert!(same, "{text}: {:?}, {theirs:?}", Scalar::of(text));
        }
        // serde_yaml's `Value` has no room for more than 64 bits; its deserializer reads these as numbers.
        for text in [
            "18446744073709551616",
            "-9223372036854775809",
            "0xffffffffffffffffff",
        ] {
            assert!(matches!(Scalar::of(text), Scalar::Float(_)), "{text}");
        }
    }
}
