//! `--format`: the output format of data.

use std::str::FromStr;

use comfy_table::ContentArrangement;
use serde::Serialize;

use super::{data, table, template::Template};
use crate::cli::error::CliError;

/// The output format of data.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Format {
    /// Tables and sentences, for people.
    #[default]
    Text,
    /// JSON, for programs.
    Json,
    /// One line per item, rendered by a Go template.
    Template(Template),
    /// A table whose columns a Go template defines.
    Table(Template),
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let template = |text: &str| text.parse::<Template>().map_err(|error| error.to_string());
        match text.trim() {
            "" | "text" | "table" | "pretty" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            text => match text.strip_prefix("table ") {
                Some(columns) => template(columns).map(Self::Table),
                None if text.contains("{{") => template(text).map(Self::Template),
                None => Err("write `table`, `json`, or a template such as '{{.Name}}' or 'table {{.Name}}'"
                    .to_owned()),
            },
        }
    }
}

impl Format {
    /// Whether the output is for people.
    #[must_use]
    pub fn is_text(&self) -> bool {
        *self == Self::Text
    }

    /// Prints one item, as a line of JSON or as rendered by the template.
    pub fn item(&self, item: &impl Serialize) -> Result<(), CliError> {
        match self {
            Self::Template(template) => data(&rendered(template, item)?),
            Self::Table(_) => self.lines(std::slice::from_ref(item)),
            Self::Json | Self::Text => super::json(item),
        }
    }

    /// Prints an item of a stream. A table gets no aligned columns, since later items are unknown.
    pub fn streamed(&self, item: &impl Serialize) -> Result<(), CliError> {
        match self {
            Self::Table(template) => data(&rendered(template, item)?),
            other => other.item(item),
        }
    }

    /// Prints a list, as one line of JSON per item.
    pub fn lines<T: Serialize>(&self, items: &[T]) -> Result<(), CliError> {
        let Self::Table(template) = self else { return items.iter().try_for_each(|item| self.item(item)) };
        let header = template.header();
        let mut drawn = table::plain(&header.split('\t').collect::<Vec<_>>());
        drawn.set_content_arrangement(ContentArrangement::Disabled);
        for item in items {
            drawn.add_row(rendered(template, item)?.split('\t').collect::<Vec<_>>());
        }
        data(&drawn.trim_fmt())
    }

    /// Prints a list, as one array in JSON.
    pub fn array<T: Serialize>(&self, items: &[T]) -> Result<(), CliError> {
        match self {
            Self::Json | Self::Text => super::json(&items),
            Self::Template(_) | Self::Table(_) => self.lines(items),
        }
    }
}

fn rendered(template: &Template, item: &impl Serialize) -> Result<String, CliError> {
    let value = serde_json::to_value(item).map_err(|error| CliError::failed(error.to_string(), None))?;
    template.render(&value).map_err(|error| CliError::Usage {
        message: error.to_string(),
        help: "`--format json` shows all fields".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_a_word_or_a_template() {
        assert_eq!("table".parse(), Ok(Format::Text));
        assert_eq!("json".parse(), Ok(Format::Json));
        assert!(matches!("{{.Name}}".parse(), Ok(Format::Template(_))));
        assert!(matches!("table {{.Name}}\\t{{.ID}}".parse(), Ok(Format::Table(_))));
        for wrong in ["yaml", "table {{.Name", "{{range .}}"] {
            assert!(wrong.parse::<Format>().is_err(), "{wrong}");
        }
    }
}
