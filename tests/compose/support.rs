//! A folder with files, and what loading it gives.

use std::{collections::BTreeMap, fs, path::PathBuf};

use sameport::compose::{self, Diagnostic, LoadError, Loaded, Options};

/// A folder that goes away with it. Messages call it `/srv/shop`.
pub struct Folder {
    dir: tempfile::TempDir,
    pub options: Options,
}

impl Folder {
    /// A folder called `shop` with these files.
    pub fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("shop");
        fs::create_dir(&home).unwrap();
        for (name, text) in files {
            let path = home.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self { dir, options: Options { current_dir: home, ..Options::default() } }
    }

    /// The same with variables of the process.
    pub fn with(mut self, variables: &[(&str, &str)]) -> Self {
        let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        self.options.environment.extend(variables.collect::<BTreeMap<_, _>>());
        self
    }

    pub fn home(&self) -> PathBuf {
        self.dir.path().join("shop")
    }

    pub fn load(&self) -> Result<Loaded, LoadError> {
        compose::load(&self.options)
    }

    /// All messages as a user reads them, without colour.
    pub fn messages(&self) -> String {
        let shown = match self.load() {
            Ok(loaded) => render(&loaded.warnings),
            Err(error) => error.to_string(),
        };
        self.anonymous(&shown)
    }

    /// A text in which the folder has always the same name.
    pub fn anonymous(&self, text: &str) -> String {
        text.replace(&*self.home().to_string_lossy(), "/srv/shop")
    }
}

pub fn render(all: &[Diagnostic]) -> String {
    all.iter().map(|d| d.render(false)).collect::<Vec<_>>().join("\n\n")
}

/// One `compose.yaml`.
pub fn file(text: &str) -> Folder {
    Folder::new(&[("compose.yaml", text)])
}

/// A file with one service `web` of these keys.
pub fn service(keys: &str) -> Folder {
    let keys: String = keys.lines().map(|line| format!("    {line}\n")).collect();
    file(&format!("services:\n  web:\n    image: nginx\n{keys}"))
}

/// The messages of several cases under their titles.
pub fn gallery<'a>(cases: impl IntoIterator<Item = (&'a str, Folder)>) -> String {
    let shown = cases.into_iter().map(|(title, folder)| {
        let messages = folder.messages();
        assert!(!messages.is_empty(), "{title}: nothing is said");
        format!("## {title}\n\n{messages}\n")
    });
    shown.collect::<Vec<_>>().join("\n")
}

/// Compares what a user reads with the snapshot of this name.
pub fn assert_shown(name: &str, shown: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_omit_expression(true);
    settings.set_prepend_module_to_snapshot(false);
    settings.bind(|| insta::assert_snapshot!(name, shown));
}
