//! Parses YAML into [`Node`] trees, within limits far above the size of real Compose files.
//!
//! The input is one text. The output is one tree per document, or the first syntax error. Aliases and merge keys are
//! resolved here; a value of an alias has the place of its anchor.

use std::{collections::HashMap, rc::Rc};

use indexmap::map::Entry as MapEntry;
use serde_saphyr::granit_parser::{self, Event, Parser, ScalarStyle, ScanError, Span, Tag};

use super::{
    node::{Directive, Entry, Map, Node, Scalar, Style, Value},
    report::{Problem, Report},
    source::{At, Source},
};

/// The largest text, in bytes.
pub(super) const MOST_BYTES: usize = crate::files::MAX_FILE_BYTES as usize;
/// The largest number of values in one text, including those that aliases repeat.
const MOST_NODES: usize = 100_000;
/// The largest total size of all scalars in one text, in bytes, including those that aliases repeat.
const MOST_SCALAR_BYTES: usize = 8 << 20;
/// The deepest nesting of values.
const MAX_DEPTH: usize = 64;

/// Parses all documents of a text. Errors are pushed to `report`; `None` if the text cannot be used.
pub(super) fn read(source: &Rc<Source>, at: At, report: &Report) -> Option<Vec<Node>> {
    let mut reader =
        Reader { whole: at, report, open: Vec::new(), anchors: HashMap::new(), used: Size::default() };
    let mut options = granit_parser::Options::default();
    options.set_emit_comments(false);
    options.flow_nesting_limit = MAX_DEPTH;
    options.block_nesting_limit = MAX_DEPTH;
    let mut documents = Vec::new();
    let mut parser = Parser::new_from_str_with_options(&source.text, options);
    while let Some(event) = parser.next_event() {
        let done = match event {
            Ok((event, span)) => reader.take(event, &span),
            Err(error) => Err(fatal(reader.syntax(&error))),
        };
        match done {
            Ok(Some(document)) => documents.push(document),
            Ok(None) => {}
            Err(problem) => {
                report.push(*problem);
                return None;
            }
        }
    }
    Some(documents)
}

/// The cost of a value, towards the limits.
#[derive(Clone, Copy, Default)]
struct Size {
    nodes: usize,
    bytes: usize,
    depth: usize,
}

/// A list or mapping whose end has not been reached.
struct Open {
    start: At,
    anchor: usize,
    directive: Option<Directive>,
    size: Size,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map { entries: Map, key: Option<Key>, merges: Vec<Node> },
}

/// A key whose value has not been reached.
struct Key {
    text: String,
    at: At,
    merge: bool,
}

struct Reader<'a> {
    whole: At,
    report: &'a Report,
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, Size)>,
    used: Size,
}

impl Reader<'_> {
    /// Handles the next event. Returns a document at its last event.
    fn take(&mut self, event: Event<'_>, span: &Span) -> Result<Option<Node>, Box<Problem>> {
        let at = self.at(span);
        match event {
            Event::DocumentStart(..) => self.anchors.clear(),
            Event::Scalar(text, style, anchor, tag) => {
                let style = if style == ScalarStyle::Plain { Style::Plain } else { Style::Quoted };
                let (directive, style) = self.tag(tag.as_deref(), style, at);
                let size = Size { nodes: 1, bytes: text.len(), depth: 0 };
                self.spend(size, at)?;
                if text.contains('\0') {
                    // No name, argument, variable or path can contain it.
                    self.report.push(
                        Problem::error(at, "a NUL character ends a text for the kernel and the engine")
                            .help("remove `\\0`"),
                    );
                }
                let value = Value::Scalar(Scalar { text: text.into_owned(), style });
                return self.value(Node { value, at, directive }, size, anchor);
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.start(at, anchor, tag.as_deref(), Content::List(Vec::new()))?;
            }
            Event::MappingStart(_, anchor, tag) => {
                let content = Content::Map { entries: Map::new(), key: None, merges: Vec::new() };
                self.start(at, anchor, tag.as_deref(), content)?;
            }
            Event::SequenceEnd | Event::MappingEnd => return self.end(at),
            Event::Alias(anchor) => {
                let Some((node, size)) = self.anchors.get(&anchor) else {
                    return Err(fatal(
                        Problem::error(at, "an alias stands inside the value that it repeats")
                            .help("an anchored value cannot contain itself"),
                    ));
                };
                let (node, size) = (Node { directive: None, ..node.clone_if(self.affordable(*size)) }, *size);
                self.spend(size, at)?;
                return self.value(node, size, 0);
            }
            _ => {}
        }
        Ok(None)
    }

    fn start(
        &mut self,
        at: At,
        anchor: usize,
        tag: Option<&Tag>,
        content: Content,
    ) -> Result<(), Box<Problem>> {
        if self.open.len() >= MAX_DEPTH {
            return Err(fatal(too_deep(at)));
        }
        let size = Size { nodes: 1, ..Size::default() };
        self.spend(size, at)?;
        let (directive, _) = self.tag(tag, Style::Plain, at);
        self.open.push(Open { start: at, anchor, directive, size, content });
        Ok(())
    }

    fn end(&mut self, at: At) -> Result<Option<Node>, Box<Problem>> {
        let Some(done) = self.open.pop() else { return Ok(None) };
        let value = match done.content {
            Content::List(list) => Value::List(list),
            Content::Map { mut entries, merges, .. } => {
                for merge in merges {
                    merge_into(&mut entries, merge)?;
                }
                Value::Map(entries)
            }
        };
        let node = Node { value, at: done.start.to(at), directive: done.directive };
        self.value(node, done.size, done.anchor)
    }

    /// Adds a complete value to its parent. Returns it if it is a whole document.
    fn value(&mut self, node: Node, size: Size, anchor: usize) -> Result<Option<Node>, Box<Problem>> {
        if self.open.len() + size.depth > MAX_DEPTH {
            return Err(fatal(too_deep(node.at)));
        }
        if anchor > 0 {
            // The copy of an anchored value counts as well.
            self.spend(size, node.at)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        let Some(parent) = self.open.last_mut() else { return Ok(Some(node)) };
        parent.size.nodes += size.nodes;
        parent.size.bytes += size.bytes;
        parent.size.depth = parent.size.depth.max(size.depth + 1);
        match &mut parent.content {
            Content::List(list) => list.push(node),
            Content::Map { entries, key, merges } => match key.take() {
                None => *key = Some(as_key(node)?),
                Some(key) if key.merge => merges.push(node),
                Some(key) => match entries.entry(key.text) {
                    MapEntry::Vacant(free) => {
                        free.insert(Entry { key: key.at, node });
                    }
                    MapEntry::Occupied(taken) => self.report.push(
                        Problem::error(key.at, format!("key `{}` is here twice", taken.key()))
                            .label("again")
                            .related(taken.get().key, "first here")
                            .help("remove one of them, or put both values under one key"),
                    ),
                },
            },
        }
        Ok(None)
    }

    fn affordable(&self, size: Size) -> Affordable {
        let fits =
            self.used.nodes + size.nodes <= MOST_NODES && self.used.bytes + size.bytes <= MOST_SCALAR_BYTES;
        if fits { Affordable::Yes } else { Affordable::No }
    }

    fn spend(&mut self, size: Size, at: At) -> Result<(), Box<Problem>> {
        self.used.nodes += size.nodes;
        self.used.bytes += size.bytes;
        if self.used.nodes > MOST_NODES || self.used.bytes > MOST_SCALAR_BYTES {
            let message = format!("the file says too much: more than {MOST_NODES} values or 8 MiB of text");
            return Err(fatal(
                Problem::error(at, message)
                    .label("the limit is reached here")
                    .help("aliases count each time they are used; split the project into several"),
            ));
        }
        Ok(())
    }

    /// The merge tag of a value, and its style. Of the tags in YAML's core schema, only `!!str` has an effect.
    fn tag(&self, tag: Option<&Tag>, style: Style, at: At) -> (Option<Directive>, Style) {
        let Some(tag) = tag else { return (None, style) };
        if let Some(core) = tag.core_suffix() {
            return (None, if core == "str" { Style::Quoted } else { style });
        }
        match tag.suffix() {
            "reset" => (Some(Directive::Reset), style),
            "override" => (Some(Directive::Override), style),
            other => {
                self.report.push(
                    Problem::warning(at, format!("tag `!{other}` has no effect"))
                        .help("Compose knows the tags `!reset` and `!override`"),
                );
                (None, style)
            }
        }
    }

    fn at(&self, span: &Span) -> At {
        let byte = |marker: granit_parser::Marker| marker.byte_offset().unwrap_or(0);
        self.whole.part(byte(span.start)..byte(span.end))
    }

    fn syntax(&self, error: &ScanError) -> Problem {
        let start = error.marker().byte_offset().unwrap_or(0);
        let at = self.whole.part(start..start + 1);
        let text = error.info();
        let help = if text.contains("tab") {
            "YAML is indented with spaces, never with tabs"
        } else if text.contains("anchor") {
            "an alias `*name` needs an anchor `&name` before it"
        } else if text.contains("nesting") || text.contains("recursion") {
            return too_deep(at);
        } else {
            "check the indentation, and look for missing quotes or a missing `:` here and just above"
        };
        Problem::error(at, format!("this is not YAML: {text}")).help(help)
    }
}

/// Whether the copy of an aliased value stays within the limits; otherwise it is not copied.
enum Affordable {
    Yes,
    No,
}

impl Node {
    fn clone_if(&self, affordable: Affordable) -> Self {
        match affordable {
            Affordable::Yes => self.clone(),
            Affordable::No => Self::text("", self.at),
        }
    }
}

/// An error after which parsing cannot continue.
fn fatal(problem: Problem) -> Box<Problem> {
    Box::new(problem)
}

fn too_deep(at: At) -> Problem {
    Problem::error(at, format!("values are nested deeper than {MAX_DEPTH} levels"))
        .help("no Compose file needs that; look for an unclosed bracket")
}

fn as_key(node: Node) -> Result<Key, Box<Problem>> {
    match node.value {
        Value::Scalar(scalar) => {
            let merge = scalar.style == Style::Plain && scalar.text == "<<";
            Ok(Key { text: scalar.text, at: node.at, merge })
        }
        _ => Err(fatal(
            Problem::error(node.at, "a list or mapping cannot be a key")
                .help("put a value that starts with `{` or `[` in quotes"),
        )),
    }
}

/// Merges the values of `<<`. Existing keys have precedence, and earlier sources over later ones.
fn merge_into(entries: &mut Map, from: Node) -> Result<(), Box<Problem>> {
    match from.value {
        Value::Map(map) => {
            for (key, entry) in map {
                entries.entry(key).or_insert(entry);
            }
            Ok(())
        }
        Value::List(list) => list.into_iter().try_for_each(|node| merge_into(entries, node)),
        Value::Scalar(_) => Err(fatal(
            Problem::error(from.at, "`<<` merges a mapping, and this is none")
                .help("write `<<: *name` with the anchor of a mapping"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The documents in one line, or the first error. Quoted scalars are in quotes.
    fn shown(text: &str) -> String {
        let report = Report::default();
        let (source, at) = report.sources.add("f.yaml".into(), text.to_owned());
        let documents = read(&source, at, &report);
        match report.finish() {
            Ok(_) => documents.iter().flatten().map(show).collect::<Vec<_>>().join(" --- "),
            Err(error) => {
                let first = &error.diagnostics()[0];
                format!("{}:{} {}", first.line.unwrap(), first.column.unwrap(), first.message)
            }
        }
    }

    fn show(node: &Node) -> String {
        let tag = node.directive.map(|d| format!("{d:?} ")).unwrap_or_default();
        let value = match &node.value {
            Value::Scalar(scalar) if scalar.style == Style::Plain => scalar.text.clone(),
            Value::Scalar(scalar) => format!("{:?}", scalar.text),
            Value::List(list) => format!("[{}]", list.iter().map(show).collect::<Vec<_>>().join(", ")),
            Value::Map(map) => {
                let entries = map.iter().map(|(key, entry)| format!("{key}: {}", show(&entry.node)));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
            }
        };
        tag + &value
    }

    #[test]
    fn features_of_compose_files_are_parsed() {
        for (text, expected) in [
            ("a: 0440\nb: yes\nc: \"1\"\nd: 'x'", "{a: 0440, b: yes, c: \"1\", d: \"x\"}"),
            ("a: |\n  x\n  y\nb: >-\n  x\n  y", "{a: \"x\\ny\\n\", b: \"x y\"}"),
            ("a: !!str 5\nb: !reset null\nc: !override [1]", "{a: \"5\", b: Reset null, c: Override [1]}"),
            ("a: &x {k: 1}\nb: *x", "{a: {k: 1}, b: {k: 1}}"),
            ("a: &x {k: 1, l: 1}\nb: {<<: *x, k: 2}", "{a: {k: 1, l: 1}, b: {k: 2, l: 1}}"),
            (
                "a: &x {k: 1}\nb: &y {k: 2, l: 2}\nc: {<<: [*x, *y]}",
                "{a: {k: 1}, b: {k: 2, l: 2}, c: {k: 1, l: 2}}",
            ),
            ("a: 1\n---\nb: 2", "{a: 1} --- {b: 2}"),
            ("{\"a\": [1, {\"b\": null}]}", "{a: [1, {b: null}]}"),
            ("\"<<\": x", "{<<: x}"),
            ("# only a comment", ""),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn mistakes_have_their_place() {
        for (text, expected) in [
            ("a: 1\nb: 2\na: 3", "3:1 key `a` is here twice"),
            ("a:\n  b: [1", "2:6 this is not YAML: unclosed bracket '['"),
            ("é: *x", "1:4 this is not YAML: while parsing node, found unknown anchor"),
            ("a: &x [*x]", "1:8 an alias stands inside the value that it repeats"),
            ("a: {<<: 1}", "1:9 `<<` merges a mapping, and this is none"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }
}
