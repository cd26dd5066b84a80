//! Additional commands of a service: `post_start` and `pre_stop` in its containers, `x-sameport.pre_deploy` before a
//! new version.

use super::{
    super::{
        fields::{Fields, wrong_type},
        keys,
        node::{Node, Value},
        report::{Problem, Report},
    },
    container,
};
use crate::spec::{Hook, Hooks, Image, PreDeploy};

const COMMAND: &str = "write `command: [\"program\", \"argument\"]` below it";

/// Reads `post_start` and `pre_stop`.
pub(super) fn hooks(service: &Fields<'_>) -> Hooks {
    Hooks { post_start: list(service, "post_start"), pre_stop: list(service, "pre_stop") }
}

fn list(service: &Fields<'_>, key: &str) -> Vec<Hook> {
    let Some(node) = service.get(key) else { return Vec::new() };
    let Value::List(list) = &node.value else {
        let help = "write one `- command: [\"program\", \"argument\"]` for each";
        service.report.push(wrong_type(node, key, "a list").help(help));
        return Vec::new();
    };
    list.iter().filter_map(|item| hook(item, key, service.report)).collect()
}

fn hook(item: &Node, key: &str, report: &Report) -> Option<Hook> {
    let what = format!("an entry of `{key}`");
    let fields = Fields::of(item, &what, report)?;
    keys::check(item, &what, keys::HOOK, report);
    let hook = Hook {
        command: command(&fields, &what)?,
        user: fields.loose_text("user"),
        privileged: fields.boolean("privileged").unwrap_or(false),
        working_dir: fields.text("working_dir"),
        environment: fields.table("environment"),
    };
    Some(hook)
}

/// Reads `x-sameport.pre_deploy`.
pub(super) fn pre_deploy(extension: &Fields<'_>) -> Option<PreDeploy> {
    let report = extension.report;
    let fields = extension.get("pre_deploy").and_then(|node| Fields::of(node, "pre_deploy", report))?;
    keys::check(fields.node, "`pre_deploy`", keys::PRE_DEPLOY, report);
    let image = fields.get("image").and_then(|node| {
        let name = fields.text("image")?;
        if name.is_empty() || name.contains(char::is_whitespace) {
            let problem = Problem::error(node.at, format!("`{name}` is not the name of an image"));
            report.push(problem.help("leave it out for the service's own image"));
            return None;
        }
        Some(Image(name))
    });
    let timeout = fields.duration("timeout");
    if let (Some(true), Some(node)) = (timeout.map(|time| time.is_zero()), fields.get("timeout")) {
        report.push(
            Problem::error(node.at, "`timeout` leaves the job no time")
                .help("write how long it may take, such as `10m`"),
        );
    }
    Some(PreDeploy {
        command: command(&fields, "`pre_deploy`")?,
        image,
        environment: fields.table("environment"),
        timeout: timeout.unwrap_or(PreDeploy::TIMEOUT),
    })
}

/// Reads a required command.
fn command(fields: &Fields<'_>, what: &str) -> Option<Vec<String>> {
    if fields.get("command").is_none() {
        fields.report.push(Problem::error(fields.node.at, format!("{what} has no `command`")).help(COMMAND));
        return None;
    }
    let words = container::command(fields, "command")?;
    if words.is_empty() {
        let at = fields.key_at("command");
        fields.report.push(Problem::error(at, format!("the `command` of {what} is empty")).help(COMMAND));
        return None;
    }
    Some(words)
}
