//! A big file as people write it.

use std::path::Path;

use sameport::compose;

use crate::support::{Folder, assert_shown, render};

fn shop() -> Folder {
    let folder = Folder::new(&[
        ("compose.yaml", include_str!("files/shop.yaml")),
        ("shop.env", include_str!("files/shop.env")),
    ]);
    folder.with(&[("DB_PASSWORD", "s3cret$"), ("HOME_OF_USER", "/home/ann"), ("TZ", "UTC")])
}

#[test]
fn a_big_file_loads_without_a_warning_but_for_what_has_no_effect() {
    let folder = shop();
    let loaded = folder.load().unwrap_or_else(|e| panic!("{e}"));
    assert_shown("shop_warnings", &folder.anonymous(&render(&loaded.warnings)));
    let spec = serde_json::to_string_pretty(&loaded.project).unwrap();
    assert_shown("shop_spec", &folder.anonymous(&spec));
    assert_shown("shop_rendered", &folder.anonymous(&loaded.rendered));
}

#[test]
fn the_rendered_file_loads_to_the_same_project_from_anywhere() {
    let loaded = shop().load().unwrap();
    let elsewhere = Folder::new(&[("elsewhere/docker-compose.yml", &loaded.rendered)]);
    let mut options = elsewhere.options.clone();
    options.current_dir.push("elsewhere");
    let again = compose::load(&options).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(again.project, loaded.project);
    assert_eq!(again.rendered, loaded.rendered);
    assert!(again.files[0].ends_with(Path::new("elsewhere/docker-compose.yml")));
}
