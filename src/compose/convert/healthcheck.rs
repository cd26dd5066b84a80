//! `healthcheck` of a service.

use super::super::{
    fields::{Fields, wrong_type},
    keys,
    node::{Node, Value},
    report::Problem,
};
use crate::spec::{HealthTest, Healthcheck};

const HELP: &str = "write a text for the shell, or a list that starts with `CMD`, `CMD-SHELL` or `NONE`";

pub(super) fn healthcheck(service: &Fields<'_>) -> Option<Healthcheck> {
    let node = service.get("healthcheck")?;
    let fields = Fields::of(node, "healthcheck", service.report)?;
    keys::check(node, "`healthcheck`", keys::HEALTHCHECK, service.report);
    let test = fields.get("test");
    let off = fields.boolean("disable").unwrap_or(false);
    let test = match test {
        Some(test) if off => {
            let problem = Problem::error(test.at, "a healthcheck has a `test` or `disable: true`, not both");
            service
                .report
                .push(problem.related(fields.key_at("disable"), "disabled here").help("remove one of them"));
            return None;
        }
        None if off => HealthTest::None,
        None => HealthTest::Inherit,
        Some(test) => read_test(test, &fields)?,
    };
    Some(Healthcheck {
        test,
        interval: fields.duration("interval"),
        timeout: fields.duration("timeout"),
        retries: fields.integer("retries"),
        start_period: fields.duration("start_period"),
        start_interval: fields.duration("start_interval"),
    })
}

fn read_test(node: &Node, fields: &Fields<'_>) -> Option<HealthTest> {
    let report = fields.report;
    let Value::List(_) = &node.value else { return Some(HealthTest::Shell(fields.text("test")?)) };
    let words = fields.strings("test");
    let (kind, rest) = words.split_first().map(|(kind, rest)| (kind.as_str(), rest)).unzip();
    let rest = rest.unwrap_or_default();
    match (kind, rest) {
        (Some("NONE"), []) => Some(HealthTest::None),
        (Some("CMD"), [_, ..]) => Some(HealthTest::Cmd(rest.to_vec())),
        (Some("CMD-SHELL"), [line]) => Some(HealthTest::Shell(line.clone())),
        (Some("CMD-SHELL"), [_, ..]) => Some(HealthTest::Shell(rest.join(" "))),
        (Some(other), _) => {
            report
                .push(wrong_type(node, "test", "a test").label(format!("starts with `{other}`")).help(HELP));
            None
        }
        (None, _) => {
            report.push(Problem::error(node.at, "`test` is an empty list").help(HELP));
            None
        }
    }
}
