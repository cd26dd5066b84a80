//! The commands of the README, the tutorial and the guides do what they say, one after the other, as a reader types them.

use std::{fs, path::Path};

use crate::support::{docker::Docker, images, project::Project};

/// The first block of the README builds the program and runs the tests.
const BUILDS: &str = "./demo ";
/// A file that a page shows begins with this line.
const WHOLE: &str = "# compose.yaml\n";

#[test]
fn the_commands_of_the_readme_and_the_tutorial_work() {
    let commands = run_all(&["README.md", "docs/tutorial.md", "docs/security.md"]);
    assert!(commands >= 20, "only {commands} commands were found");
}

#[test]
fn the_commands_of_the_guides_for_newcomers_work() {
    let commands =
        run_all(&["docs/guides/compose.md", "docs/guides/reverse-proxy.md", "docs/guides/kamal.md"]);
    assert!(commands >= 8, "only {commands} commands were found");
}

#[test]
fn the_commands_of_the_guides_for_operators_work() {
    let commands = run_all(&[
        "docs/guides/deploy.md",
        "docs/guides/databases.md",
        "docs/guides/firewall.md",
        "docs/guides/long-connections.md",
        "docs/guides/systemd.md",
        "docs/guides/tls.md",
        "docs/guides/udp.md",
        "docs/guides/without-bpf.md",
    ]);
    assert!(commands >= 10, "only {commands} commands were found");
}

/// Runs the commands of the pages, each page's in a folder of its own. How many there were.
fn run_all(pages: &[&str]) -> usize {
    let mut commands = 0;
    for page in pages {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap();
        let blocks: Vec<_> = blocks(&text, "sh").filter(|block| !block.starts_with(BUILDS)).collect();
        if blocks.is_empty() {
            continue;
        }
        let file = self::blocks(&text, "yaml").find(|block| block.starts_with(WHOLE));
        let book = Book::open(file.unwrap_or_else(|| panic!("{page} has commands and no Compose file")));
        for command in blocks.iter().flat_map(|block| block.lines()) {
            let command = command.split(" # ").next().unwrap_or_default().trim();
            if !command.is_empty() && !command.starts_with('#') {
                book.run(page, command);
                commands += 1;
            }
        }
    }
    commands
}

fn blocks<'a>(text: &'a str, language: &str) -> impl Iterator<Item = &'a str> {
    let fence = format!("```{language}\n");
    let starts: Vec<_> = text.match_indices(&fence).map(|(at, found)| at + found.len()).collect();
    starts.into_iter().filter_map(|start| Some(text[start..].split_once("\n```")?.0))
}

/// A page's project. Its images and its port are a test's own.
struct Book {
    project: Project,
    newer: String,
}

impl Book {
    fn open(file: &str) -> Self {
        let nginx = images::build("nginx");
        let project = Project::new("services: {}");
        let newer = format!("localhost/{}:newer", project.name);
        Docker::default().run(&["tag", &nginx, &newer]);
        let book = Self { project, newer };
        // Within a container, the test's nginx listens on another port than the page's.
        book.project.write(&book.own(file).replace("http://localhost/", "http://localhost:8080/"));
        book
    }

    /// Text of the page with an image and a port that this machine has: the test's nginx listens on port 8080.
    fn own(&self, text: &str) -> String {
        let port = self.project.port;
        let nginx = images::build("nginx");
        text.replace("image: nginx\n", &format!("image: {nginx}\n"))
            .replace("nginx:1.27", &self.newer)
            .replace("8080:80\"", &format!("{port}:8080\""))
            .replace("curl -f http", "wget -qO- http")
    }

    fn run(&self, page: &str, command: &str) {
        let port = self.project.port;
        let command = self
            .own(command)
            .replace("http://localhost:8080/", &format!("http://localhost:{port}/"))
            .replace("http://127.0.0.1:8080/", &format!("http://127.0.0.1:{port}/"));
        let finished = self.project.shell(&command);
        assert_eq!(finished.code, Some(0), "{page}: {command}\n{finished:#?}");
    }
}

impl Drop for Book {
    fn drop(&mut self) {
        // Nothing to remove where it could not be made.
        let _ = Docker::default().try_run(&["rmi", &self.newer]);
    }
}
