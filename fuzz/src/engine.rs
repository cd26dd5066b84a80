//! What the engine tells: labels, and what containers write.

use std::collections::BTreeMap;

use sameport::{
    control_chars::{visible, with_colors},
    engine::{LAST_LINES, Labels, LogLines, Nonce, Tail, cannot_run},
};

/// Labels of a container, `NAME=VALUE` in each line.
pub fn labels(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let labels: BTreeMap<_, _> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect();
    let hooks = labels.get(Labels::HOOKS).map(|label| Labels::hooks(label)).unwrap_or_default();
    if let Some(read) = Labels::from_map(&labels) {
        let nonce = Nonce::fresh().expect("there are random bytes");
        let written = read.of_container(&hooks, &nonce);
        assert_eq!(Labels::from_map(&written), Some(read));
        assert_eq!(Labels::hooks(&written[Labels::HOOKS]), hooks);
    }
}

/// The output of a container in pieces: before each, a byte that tells where it was written to, and one for its length.
pub fn log_lines(data: &[u8]) {
    let (mut lines, mut tail) = (LogLines::default(), Tail::default());
    let (mut found, mut rest, mut given) = (Vec::new(), data, 0);
    while let [stream, length, more @ ..] = rest {
        let (piece, after) = more.split_at(usize::from(*length).min(more.len()));
        // Now and then a long one, of which a line has no end.
        let piece = &piece.repeat(if stream >> 4 == 15 { 512 } else { 1 });
        tail.push(piece);
        found.extend(lines.take(stream & 1 == 1, piece));
        given += piece.len();
        rest = after;
    }
    found.extend(lines.rest());
    assert!(lines.rest().is_empty(), "all is told once");
    let told: usize = found.iter().map(|line| line.bytes().len()).sum();
    assert!(told <= given, "{told} of {given} bytes: {found:?}");
    for line in found {
        assert!(!line.text.contains('\n'), "{line:?}");
        assert_eq!(line.text.trim_end_matches('\r'), line.text);
        let shown = visible(&line.text);
        assert_eq!(visible(&shown), shown, "what is shown commands nothing");
        assert!(!shown.contains(|c: char| c.is_control() && c != '\t'), "{shown:?}");
        let colored = with_colors(&line.text);
        assert_eq!(with_colors(&colored), colored);
        let styles: usize = colored.split('\u{1b}').skip(1).map(|style| usize::from(is_style(style))).sum();
        assert_eq!(styles, colored.matches('\u{1b}').count(), "{colored:?}");
        if let Some(words) = cannot_run(i64::from(line.stderr), &line.text) {
            assert!(!words.contains(char::is_control) && words.chars().count() <= 200, "{words:?}");
        }
    }
    assert!(tail.finish().len() <= LAST_LINES);
}

/// Whether what follows an escape is the end of a sequence that sets a style.
fn is_style(text: &str) -> bool {
    let parameters = text.strip_prefix('[').and_then(|text| text.split_once('m'));
    parameters.is_some_and(|(numbers, _)| numbers.bytes().all(|b| b.is_ascii_digit() || b";:".contains(&b)))
}
