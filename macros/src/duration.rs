//! Durations as people write them.

use std::time::Duration;

/// Reads `10ms`, `250 us` or `1s`.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    const FORM: &str = "a whole number with `us`, `ms` or `s`, like `10ms`";
    let text = text.trim();
    let unit_at = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let number: u64 = number
        .parse()
        .map_err(|_| format!("is {FORM}, not `{text}`"))?;
    let duration = match unit.trim_start() {
        "us" => Duration::from_micros(number),
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        _ => return Err(format!("is {FORM}, not `{text}`")),
    };
    if duration.is_zero() {
        return Err("is zero, which makes every poll a stall".to_owned());
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_and_a_unit() {
        for (text, expected) in [
            ("10ms", Duration::from_millis(10)),
            (" 250 us ", Duration::from_micros(250)),
            ("1s", Duration::from_secs(1)),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "",
            "10",
            "ms",
            "1.5s",
            "-1ms",
            "10 min",
            "0ms",
            "99999999999999999999s",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
