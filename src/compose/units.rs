//! Durations, sizes and other values in the formats of Compose.

use std::time::Duration;

/// Parses a duration such as `1m30s`, `1.5h`, `100ms` or `2d`. `0` needs no unit.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0.0_f64;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let number: f64 = rest[..number_end].parse().ok()?;
        rest = &rest[number_end..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        total += number
            * match &rest[..unit_end] {
                "ns" => 1e-9,
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                "d" => 86_400.0,
                "w" => 604_800.0,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    // Rounded, since sums of fractions are not exact.
    Some(Duration::from_nanos(whole(total * 1e9)?))
}

/// Parses a number of bytes such as `64m`, `1.5gb`, `100 KiB` or `2048`. Units are powers of 1024, as in Docker.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    let power = match text[end..].trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return None,
    };
    whole(number * 1024_f64.powi(power))
}

/// Parses a number of CPUs such as `0.5`. Returns billionths of a CPU.
pub(super) fn nano_cpus(text: &str) -> Option<u64> {
    let text = text.trim();
    if !text.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    whole(text.parse::<f64>().ok()? * 1e9)
}

/// The nearest whole number; `None` if it is negative or too large.
fn whole(number: f64) -> Option<u64> {
    let rounded = number.round();
    // Up to about 2^63, the largest number in Docker's API, `f64` is precise enough.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    (rounded.is_finite() && (0.0..9.2e18).contains(&rounded)).then_some(rounded as u64)
}

/// Parses the permission bits of a file: octal, with or without a leading `0` or `0o`.
pub(super) fn mode(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let valid = !digits.is_empty() && digits.chars().all(|c| c.is_digit(8));
    u32::from_str_radix(digits, 8).ok().filter(|&mode| valid && mode <= 0o7777)
}

const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// Whether Linux has this signal, such as `SIGTERM`, `TERM`, `15` or `SIGRTMIN+3`.
pub(super) fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<u8>() {
        return (1..=64).contains(&number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |from: &str, sign: char, most: u8| {
        name.strip_prefix(from).is_some_and(|rest| {
            rest.is_empty()
                || rest.strip_prefix(sign).and_then(|n| n.parse::<u8>().ok()).is_some_and(|n| n <= most)
        })
    };
    SIGNALS.contains(&name) || real_time("RTMIN", '+', 30) || real_time("RTMAX", '-', 30)
}

/// The names of the standard signals, for suggestions.
pub(super) fn signal_names() -> impl Iterator<Item = String> {
    SIGNALS.iter().map(|name| format!("SIG{name}"))
}

/// Splits a command line as a shell does, with quotes and backslashes. `None` if a quote is not closed.
pub(super) fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('\''), c) => word.get_or_insert_default().push(c),
            (_, '\\') => {
                let next = chars.next()?;
                // In double quotes, a backslash stays before characters that need no escape.
                if quote.is_some() && !matches!(next, '"' | '\\' | '$' | '`' | '\n') {
                    word.get_or_insert_default().push('\\');
                }
                if next != '\n' {
                    word.get_or_insert_default().push(next);
                }
            }
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, expected) in [
            ("10s", Some(10_000)),
            ("1m30s", Some(90_000)),
            ("1.5h", Some(5_400_000)),
            ("100ms", Some(100)),
            ("2d", Some(172_800_000)),
            ("0", Some(0)),
            ("10", None),
            ("", None),
            ("s", None),
            ("-1s", None),
            ("1x", None),
            ("1.2.3s", None),
            ("99999999999999999999h", None),
        ] {
            assert_eq!(duration(text), expected.map(Duration::from_millis), "{text:?}");
        }
    }

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("64m", Some(64 << 20)),
            ("64M", Some(64 << 20)),
            ("1.5gb", Some(3 << 29)),
            ("100 KiB", Some(100 << 10)),
            ("2048", Some(2048)),
            ("5b", Some(5)),
            ("", None),
            ("m", None),
            ("-1m", None),
            ("1x", None),
            ("999999999p", None),
        ] {
            assert_eq!(bytes(text), expected, "{text:?}");
        }
    }

    #[test]
    fn cpus_modes_and_signals() {
        for (text, expected) in
            [("0.5", Some(500_000_000)), ("2", Some(2_000_000_000)), ("-1", None), ("inf", None)]
        {
            assert_eq!(nano_cpus(text), expected, "{text}");
        }
        for (text, expected) in
            [("0440", Some(0o440)), ("1777", Some(0o1777)), ("0o7", Some(7)), ("8", None), ("", None)]
        {
            assert_eq!(mode(text), expected, "{text}");
        }
        for (text, expected) in [
            ("SIGTERM", true),
            ("quit", true),
            ("15", true),
            ("SIGRTMIN+3", true),
            ("0", false),
            ("SIGFOO", false),
        ] {
            assert_eq!(is_signal(text), expected, "{text}");
        }
    }

    #[test]
    fn command_lines_split_as_in_a_shell() {
        for (line, expected) in [
            ("a b  c", Some(vec!["a", "b", "c"])),
            ("sh -c 'echo \"hi\" $X'", Some(vec!["sh", "-c", "echo \"hi\" $X"])),
            ("a \"b c\"d", Some(vec!["a", "b cd"])),
            ("a \"\" b", Some(vec!["a", "", "b"])),
            ("a\\ b", Some(vec!["a b"])),
            ("\"a\\nb\\\"\"", Some(vec!["a\\nb\""])),
            ("a #b", Some(vec!["a", "#b"])),
            ("", Some(vec![])),
            ("a 'b", None),
            ("a\\", None),
        ] {
            let expected = expected.map(|words| words.into_iter().map(str::to_owned).collect::<Vec<_>>());
            assert_eq!(words(line), expected, "{line}");
        }
    }
}
