//! The committed schemas, as a validator reads them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::Value;

/// The folder of the committed schemas.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schema")
}

/// A committed schema.
pub fn read(name: &str) -> Value {
    let path = folder().join(format!("{name}.json"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// Holds documents against one committed schema, in which no key may be missing: what is not in it is an error, too.
pub struct Validator {
    schemas: Schemas,
    index: SchemaIndex,
    name: String,
}

impl Validator {
    pub fn of(name: &str) -> Self {
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.enable_format_assertions();
        let mut schema = read(name);
        close(&mut schema, &Place::Root);
        let location = format!("memory:{name}");
        schema.as_object_mut().unwrap().remove("$id");
        compiler.add_resource(&location, schema).unwrap();
        let index = compiler.compile(&location, &mut schemas).unwrap();
        Self { schemas, index, name: name.to_owned() }
    }

    pub fn check(&self, document: &Value) {
        if let Err(error) = self.schemas.validate(document, self.index) {
            panic!("not as {}.json says: {error:#}\n{document:#}", self.name);
        }
    }
}

/// Where a schema stands: parts of `oneOf` and `allOf` describe the same object as what is around them.
enum Place {
    Root,
    Part,
}

/// Readers have to ignore keys that they do not know. A test has not: it would miss one that nobody described. What is in
/// a `oneOf`, or behind a `$ref`, describes a part of the same object, so only the schema of a whole value is closed.
fn close(schema: &mut Value, place: &Place) {
    let Some(map) = schema.as_object_mut() else { return };
    let has_keys = ["properties", "oneOf", "anyOf", "allOf", "$ref"].iter().any(|key| map.contains_key(*key));
    if matches!(place, Place::Root) && has_keys {
        map.insert("unevaluatedProperties".to_owned(), false.into());
    }
    for (key, value) in map.iter_mut() {
        match (key.as_str(), value) {
            ("oneOf" | "anyOf" | "allOf", Value::Array(parts)) => {
                parts.iter_mut().for_each(|part| close(part, &Place::Part));
            }
            ("properties", Value::Object(schemas)) => {
                schemas.values_mut().for_each(|schema| close(schema, &Place::Root));
            }
            ("$defs", Value::Object(schemas)) => {
                schemas.values_mut().for_each(|schema| close(schema, &Place::Part));
            }
            ("items" | "additionalProperties", value) => close(value, &Place::Root),
            _ => {}
        }
    }
}
