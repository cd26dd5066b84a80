//! Output that nobody reads to its end.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use crate::support::Home;

#[test]
fn a_reader_that_leaves_ends_a_command_without_a_word() {
    let many: String = (0..5000).map(|n| format!("  s{n}: {{ image: localhost/web }}\n")).collect();
    let home = Home::with(&format!("services:\n{many}"));
    for line in ["config --services", "config", "config --format json"] {
        let mut child = home.sameport(line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = vec![0; 1];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut first).unwrap();
        drop(child.stdout.take());
        let errors: Vec<_> =
            BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok).collect();
        assert!(errors.is_empty(), "{line}: {errors:?}");
        assert_eq!(child.wait().unwrap().code(), Some(0), "{line}");
    }
}

#[test]
fn completions_are_cut_off_as_quietly() {
    let home = Home::empty();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = home.sameport("completion zsh").stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.success());
}
