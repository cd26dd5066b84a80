//! `--format '{{.Name}}'`: the subset of Go templates that is common with Docker.
//!
//! Supported are fields (`{{.Name}}`, `{{.Traffic.Weight}}`), Docker's formatting functions (`json`, `join`, `lower`,
//! `upper`, `title`, `truncate`), `len` and `index`, and pipelines of them. The lookup of a field ignores case and
//! underscores, so `.StartedAt` is `started_at` and `.ID` is `id`.

use std::str::FromStr;

use serde_json::Value;

/// A parsed template.
#[derive(Clone, Debug, PartialEq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Pipeline(Vec<Call>),
}

/// A function call or a plain value.
#[derive(Clone, Debug, PartialEq)]
enum Call {
    Value(Argument),
    Function { function: Function, arguments: Vec<Argument> },
}

#[derive(Clone, Debug, PartialEq)]
enum Argument {
    Field(Vec<String>),
    Text(String),
    Number(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    Json,
    Join,
    Lower,
    Upper,
    Title,
    Truncate,
    Len,
    Index,
}

const FUNCTIONS: [(&str, Function); 8] = [
    ("json", Function::Json),
    ("join", Function::Join),
    ("lower", Function::Lower),
    ("upper", Function::Upper),
    ("title", Function::Title),
    ("truncate", Function::Truncate),
    ("len", Function::Len),
    ("index", Function::Index),
];

/// Why a template is invalid, or does not fit the data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// An action has no `}}`.
    #[error("`{{{{` without `}}}}` in the template")]
    Unclosed,
    /// An action has no content.
    #[error("`{{{{}}}}` in the template is empty")]
    Empty,
    /// A word is not a field, a string, a number or a function.
    #[error("`{0}` in the template is neither a field such as `.Name` nor one of {names}", names = function_names())]
    Unknown(String),
    /// A function has too few arguments, or arguments of the wrong type.
    #[error("`{0}` in the template has wrong arguments")]
    Arguments(&'static str),
    /// The data has no such field.
    #[error("there is no field `.{field}`; there are {known}")]
    NoField {
        /// The name in the template.
        field: String,
        /// The names of the existing fields.
        known: String,
    },
}

fn function_names() -> String {
    FUNCTIONS.map(|(name, _)| name).join(", ")
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        let mut parts = Vec::new();
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once("{{") {
            let (action, tail) = split_action(after).ok_or(TemplateError::Unclosed)?;
            let (trim_before, action) =
                action.strip_prefix("- ").map_or((false, action), |rest| (true, rest));
            let (trim_after, action) = action.strip_suffix(" -").map_or((false, action), |rest| (true, rest));
            let before = if trim_before { before.trim_end() } else { before };
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(Part::Pipeline(pipeline(action)?));
            rest = if trim_after { tail.trim_start() } else { tail };
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self(parts))
    }
}

/// Splits at the end of an action. Braces within quotes do not end it.
fn split_action(text: &str) -> Option<(&str, &str)> {
    let mut quoted = None;
    let mut before = '\0';
    for (at, char) in text.char_indices() {
        match (quoted, char) {
            (Some(quote), _) if char == quote && before != '\\' => quoted = None,
            (Some(_), _) => {}
            (None, '"' | '`') => quoted = Some(char),
            (None, '}') if text.get(at..)?.starts_with("}}") => {
                return Some((text.get(..at)?, text.get(at + 2..)?));
            }
            (None, _) => {}
        }
        before = char;
    }
    None
}

fn pipeline(text: &str) -> Result<Vec<Call>, TemplateError> {
    let mut calls = vec![Vec::new()];
    for word in words(text)? {
        match (word.as_str(), calls.last_mut()) {
            ("|", _) => calls.push(Vec::new()),
            (_, Some(call)) => call.push(word),
            (_, None) => {}
        }
    }
    calls.iter().enumerate().map(|(place, words)| call(words, place)).collect()
}

/// Splits an action into words. Quoted strings stay whole and keep their quotes.
fn words(text: &str) -> Result<Vec<String>, TemplateError> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '|' => 1,
            '"' | '`' => {
                let inner = rest.get(1..).unwrap_or_default();
                let close = inner.char_indices().find(|(at, char)| {
                    *char == first
                        && !(first == '"' && inner.get(..*at).is_some_and(|before| before.ends_with('\\')))
                });
                close.map(|(at, _)| at + 2).ok_or(TemplateError::Unclosed)?
            }
            _ => rest.find(|char: char| char.is_whitespace() || char == '|').unwrap_or(rest.len()),
        };
        let (word, tail) = rest.split_at(end);
        words.push(word.to_owned());
        rest = tail.trim_start();
    }
    Ok(words)
}

fn call(words: &[String], place: usize) -> Result<Call, TemplateError> {
    let (first, rest) = words.split_first().ok_or(TemplateError::Empty)?;
    if let Some((_, function)) = FUNCTIONS.into_iter().find(|(name, _)| name == first) {
        let arguments = rest.iter().map(|word| argument(word)).collect::<Result<_, _>>()?;
        return Ok(Call::Function { function, arguments });
    }
    match (argument(first)?, rest, place) {
        (value, [], 0) => Ok(Call::Value(value)),
        (_, [second, ..], _) => Err(TemplateError::Unknown(second.clone())),
        // Only a function accepts the value of a pipe.
        (..) => Err(TemplateError::Unknown(first.clone())),
    }
}

fn argument(word: &str) -> Result<Argument, TemplateError> {
    if let Some(path) = word.strip_prefix('.') {
        let fields = path.split('.').filter(|field| !field.is_empty()).map(str::to_owned).collect();
        return Ok(Argument::Field(fields));
    }
    if let Some(text) = word.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        return Ok(Argument::Text(text.replace("\\\"", "\"")));
    }
    if let Some(text) = word.strip_prefix('`').and_then(|text| text.strip_suffix('`')) {
        return Ok(Argument::Text(text.to_owned()));
    }
    word.parse().map(Argument::Number).map_err(|_| TemplateError::Unknown(word.to_owned()))
}

impl Template {
    /// Renders the data.
    ///
    /// # Errors
    /// If a field does not exist, or a function does not accept its arguments.
    pub fn render(&self, data: &Value) -> Result<String, TemplateError> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(own) => text.push_str(own),
                Part::Pipeline(calls) => text.push_str(&words_of(&run(calls, data)?)),
            }
        }
        Ok(text)
    }

    /// The header of a table with these columns: the last part of each field name, in capitals.
    #[must_use]
    pub fn header(&self) -> String {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(own) => text.push_str(own),
                Part::Pipeline(calls) => text.push_str(&column(calls)),
            }
        }
        text
    }
}

fn column(calls: &[Call]) -> String {
    let fields = calls.iter().flat_map(|call| match call {
        Call::Value(argument) => std::slice::from_ref(argument),
        Call::Function { arguments, .. } => arguments.as_slice(),
    });
    let mut names = fields.filter_map(|argument| match argument {
        Argument::Field(path) => path.last(),
        Argument::Text(_) | Argument::Number(_) => None,
    });
    let mut column = String::new();
    let mut before_was_lower = false;
    for char in names.next_back().map_or("", String::as_str).chars() {
        if char == '_' || (char.is_uppercase() && before_was_lower) {
            column.push(' ');
        }
        before_was_lower = char.is_lowercase();
        column.extend(char.to_uppercase().filter(|char| *char != '_'));
    }
    column
}

fn run(calls: &[Call], data: &Value) -> Result<Value, TemplateError> {
    let mut piped = None;
    for call in calls {
        piped = Some(match call {
            Call::Value(argument) => value(argument, data)?,
            Call::Function { function, arguments } => {
                let mut values =
                    arguments.iter().map(|argument| value(argument, data)).collect::<Result<Vec<_>, _>>()?;
                // The value of the pipe is the last argument.
                values.extend(piped.take());
                apply(*function, &values)?
            }
        });
    }
    Ok(piped.unwrap_or_default())
}

fn value(argument: &Argument, data: &Value) -> Result<Value, TemplateError> {
    match argument {
        Argument::Text(text) => Ok(Value::String(text.clone())),
        Argument::Number(number) => Ok(Value::from(*number)),
        Argument::Field(path) => path.iter().try_fold(data, |data, name| field(data, name)).cloned(),
    }
}

fn field<'v>(data: &'v Value, name: &str) -> Result<&'v Value, TemplateError> {
    let bare = |name: &str| name.replace('_', "").to_lowercase();
    match data {
        // Any field of an absent value is absent.
        Value::Null => Ok(&Value::Null),
        Value::Object(fields) => fields
            .iter()
            .find(|(key, _)| bare(key) == bare(name))
            .map(|(_, value)| value)
            .ok_or_else(|| no_field(name, fields.keys().map(|key| format!(".{}", camel(key))).collect())),
        _ => Err(no_field(name, Vec::new())),
    }
}

fn no_field(field: &str, known: Vec<String>) -> TemplateError {
    let known = if known.is_empty() { "none".to_owned() } else { known.join(" ") };
    TemplateError::NoField { field: field.to_owned(), known }
}

/// The name of a field in templates: `StartedAt` for `started_at`.
fn camel(key: &str) -> String {
    if key == "id" { "ID".to_owned() } else { key.split('_').map(title).collect() }
}

fn title(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn apply(function: Function, values: &[Value]) -> Result<Value, TemplateError> {
    let name = FUNCTIONS.iter().find(|(_, known)| *known == function).map_or("", |(name, _)| *name);
    let wrong = || TemplateError::Arguments(name);
    let text = |change: fn(&str) -> String| match values {
        [value] => Ok(Value::String(change(&words_of(value)))),
        _ => Err(wrong()),
    };
    match (function, values) {
        (Function::Json, [value]) => Ok(Value::String(value.to_string())),
        (Function::Lower, _) => text(str::to_lowercase),
        (Function::Upper, _) => text(str::to_uppercase),
        (Function::Title, _) => text(|text| text.split(' ').map(title).collect::<Vec<_>>().join(" ")),
        (
            Function::Join,
            [Value::Array(list), Value::String(between)] | [Value::String(between), Value::Array(list)],
        ) => Ok(Value::String(list.iter().map(words_of).collect::<Vec<_>>().join(between))),
        (Function::Truncate, [value, Value::Number(most)] | [Value::Number(most), value]) => {
            let most = most.as_u64().and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
            Ok(Value::String(words_of(value).chars().take(most).collect()))
        }
        (Function::Len, [value]) => Ok(Value::from(match value {
            Value::Array(list) => list.len(),
            Value::Object(fields) => fields.len(),
            other => words_of(other).chars().count(),
        })),
        (Function::Index, [Value::Array(list), Value::Number(at)]) => {
            let at = at.as_u64().and_then(|at| usize::try_from(at).ok()).unwrap_or(usize::MAX);
            Ok(list.get(at).cloned().unwrap_or_default())
        }
        (Function::Index, [Value::Object(fields), Value::String(key)]) => {
            Ok(fields.get(key).cloned().unwrap_or_default())
        }
        _ => Err(wrong()),
    }
}

/// A value as text. An absent value is empty; list items are separated by commas.
fn words_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(words_of).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(template: &str) -> Result<String, String> {
        let data = json!({
            "name": "shop-web-1", "id": "0123456789abcdef", "started_at": null, "up_to_date": true,
            "ports": ["80->8080/tcp", "53->53/udp"], "traffic": { "weight": 100 }, "absent": null,
        });
        let template: Template = template.parse().map_err(|error: TemplateError| error.to_string())?;
        template.render(&data).map_err(|error| error.to_string())
    }

    #[test]
    fn fields_and_functions_render_as_in_docker() {
        for (template, wanted) in [
            ("{{.Name}}", "shop-web-1"),
            ("{{ .Name }}: {{.UpToDate}}", "shop-web-1: true"),
            (r"{{.ID}}\t{{.Ports}}", "0123456789abcdef\t80->8080/tcp, 53->53/udp"),
            ("{{.Traffic.Weight}}", "100"),
            ("[{{.StartedAt}}{{.Absent.Anything}}]", "[]"),
            ("{{json .Ports}}", r#"["80->8080/tcp","53->53/udp"]"#),
            (r#"{{join .Ports " and "}}"#, "80->8080/tcp and 53->53/udp"),
            ("{{.Name | upper}}", "SHOP-WEB-1"),
            ("{{.Name | upper | lower}}", "shop-web-1"),
            ("{{truncate .ID 12}}", "0123456789ab"),
            ("{{len .Ports}}", "2"),
            ("{{index .Ports 1}}", "53->53/udp"),
            (r#"{{join .Ports "}}"}}"#, "80->8080/tcp}}53->53/udp"),
            ("a {{- .Name -}} b", "ashop-web-1b"),
            ("plain", "plain"),
        ] {
            assert_eq!(render(template).as_deref(), Ok(wanted), "{template}");
        }
    }

    #[test]
    fn template_errors_list_valid_names() {
        for (template, said) in [
            ("{{.Nam}}", "there is no field `.Nam`; there are .Absent .ID .Name .Ports"),
            ("{{.Name.First}}", "there is no field `.First`"),
            ("{{.Name", "without `}}`"),
            ("{{}}", "is empty"),
            ("{{range .Ports}}{{.}}{{end}}", "`range` in the template is neither a field"),
            ("{{join .Name}}", "`join` in the template has wrong arguments"),
            ("{{.Name .Ports}}", "`.Ports`"),
        ] {
            let error = render(template).unwrap_err();
            assert!(error.contains(said), "{template}: {error}");
        }
    }

    #[test]
    fn the_header_of_a_table_names_its_columns() {
        let header = |text: &str| text.parse::<Template>().unwrap().header();
        assert_eq!(header("{{.Name}}\t{{.StartedAt}}\t{{truncate .ID 12}}"), "NAME\tSTARTED AT\tID");
        assert_eq!(header("{{.Traffic.Weight | upper}}"), "WEIGHT");
    }
}
