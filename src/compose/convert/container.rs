//! Keys of a service that configure its containers.

use std::collections::BTreeMap;

use super::{
    super::{
        fields::{Fields, loose, nearest, wrong_type},
        keys,
        node::{Node, Value},
        report::{Problem, Report},
        source::At,
        units,
    },
    healthcheck, resources, volumes,
};
use crate::spec::{Container, Device, Image, LogDriver, PullPolicy, Ulimit};

/// The container of a service; `None` if it has no valid image.
pub(super) fn container(
    service: &Fields<'_>,
    name: &str,
    key: At,
    known: &mut volumes::Known<'_>,
) -> Option<Container> {
    let image = image(service, name, key);
    let container = Container {
        command: command(service, "command"),
        entrypoint: command(service, "entrypoint"),
        environment: service.table("environment"),
        labels: service.full_table("labels"),
        mounts: volumes::mounts(service, known),
        user: service.loose_text("user"),
        working_dir: service.text("working_dir"),
        healthcheck: healthcheck::healthcheck(service),
        init: service.boolean("init"),
        read_only: service.boolean("read_only").unwrap_or(false),
        privileged: service.boolean("privileged").unwrap_or(false),
        cap_add: service.strings("cap_add"),
        cap_drop: service.strings("cap_drop"),
        security_opt: service.strings("security_opt"),
        devices: devices(service),
        resources: resources::resources(service),
        ulimits: ulimits(service),
        group_add: service.strings("group_add"),
        stop_signal: stop_signal(service),
        tty: service.boolean("tty").unwrap_or(false),
        stdin_open: service.boolean("stdin_open").unwrap_or(false),
        logging: logging(service),
        platform: service.text("platform"),
        runtime: service.text("runtime"),
        ..Container::new(Image(String::new()))
    };
    check_names(service, &container);
    Some(Container { image: image?, ..container })
}

/// With these, a replica can read, reset or take over the connections of other replicas in its network namespace.
const NETWORK_CAPABILITIES: [&str; 6] = ["ALL", "BPF", "NET_ADMIN", "NET_RAW", "SYS_ADMIN", "SYS_PTRACE"];

/// Warns of privileges by which replicas of a service can affect each other.
pub(super) fn check_rights(service: &Fields<'_>, replicas: u32) {
    if replicas < 2 || service.text("network_mode").is_some_and(|mode| mode == "host") {
        return;
    }
    let mut found = Vec::new();
    if service.boolean("privileged") == Some(true) {
        found.push(("`privileged`".to_owned(), service.key_at("privileged")));
    }
    for (capability, at) in service.list("cap_add") {
        let name = capability.to_ascii_uppercase();
        let name = name.strip_prefix("CAP_").unwrap_or(&name);
        if NETWORK_CAPABILITIES.contains(&name) {
            found.push((format!("the capability `{name}`"), at));
        }
    }
    for (right, at) in found {
        let message = format!("{right} allows each replica to read and reset connections of the others");
        service.report.push(
            Problem::warning(at, message)
                .help("replicas share one network; leave it out, or use it only for images that you trust"),
        );
    }
}

fn image(service: &Fields<'_>, name: &str, key: At) -> Option<Image> {
    let report = service.report;
    let Some(node) = service.get("image") else {
        let problem = if service.get("build").is_some() {
            Problem::error(
                service.key_at("build"),
                format!("service `{name}` has no `image`: sameport builds none"),
            )
            .help(format!("build it before (`docker build -t {name} …`), and add `image: {name}`"))
        } else {
            Problem::error(key, format!("service `{name}` has no `image`")).help("add `image: NAME` below it")
        };
        report.push(problem);
        return None;
    };
    let text = service.text("image")?;
    if text.is_empty() || text.contains(char::is_whitespace) {
        let message = format!("`{text}` is not the name of an image");
        report.push(
            Problem::error(node.at, message)
                .help("write one such as `nginx`, `nginx:1.27` or `localhost/app`"),
        );
        return None;
    }
    Some(Image(text))
}

/// A command as a list, or as a line that is split as a shell does.
pub(super) fn command(service: &Fields<'_>, key: &str) -> Option<Vec<String>> {
    let node = service.get(key)?;
    match &node.value {
        Value::List(list) => Some(
            list.iter().filter_map(|item| super::super::fields::text(item, key, service.report)).collect(),
        ),
        Value::Scalar(_) => {
            let line = service.text(key)?;
            let words = units::words(&line);
            if words.is_none() {
                let problem = Problem::error(node.at, format!("`{key}` has a quote that is not closed"));
                service.report.push(
                    problem.help("close it, or write the command as a list: [\"program\", \"argument\"]"),
                );
            }
            words
        }
        Value::Map(_) => {
            let help = "write a text, or a list: [\"program\", \"argument\"]";
            service.report.push(wrong_type(node, key, "a command").help(help));
            None
        }
    }
}

/// Checks that names of variables are not empty and contain neither `=` nor NUL.
fn check_names(service: &Fields<'_>, container: &Container) {
    for name in container.environment.keys().filter(|name| name.is_empty() || name.contains(['=', '\0'])) {
        let at =
            service.get("environment").and_then(|n| n.as_map()?.get(name)).map_or(service.node.at, |e| e.key);
        let problem = Problem::error(at, format!("`{name}` cannot be the name of a variable"));
        service.report.push(problem.help("write `NAME: value`"));
    }
}

fn stop_signal(service: &Fields<'_>) -> Option<String> {
    let node = service.get("stop_signal")?;
    let text = service.loose_text("stop_signal")?;
    if !units::is_signal(&text) {
        let names: Vec<String> = units::signal_names().collect();
        let help = match nearest(&text, names.iter().map(String::as_str)) {
            Some(name) => format!("did you mean `{name}`?"),
            None => "write one such as `SIGTERM`, `SIGQUIT` or `SIGINT`".to_owned(),
        };
        service.report.push(Problem::error(node.at, format!("`{text}` is not a signal")).help(help));
        return None;
    }
    Some(text)
}

/// When to pull the image.
pub(super) fn pull_policy(service: &Fields<'_>) -> PullPolicy {
    let Some(node) = service.get("pull_policy") else { return PullPolicy::default() };
    if let Some(text @ ("build" | "daily" | "weekly" | "every_")) =
        loose(node).map(|text| if text.starts_with("every_") { "every_" } else { text })
    {
        let text = if text == "every_" { "every_…" } else { text };
        let message = format!("`pull_policy: {text}` means `missing` here");
        service.report.push(Problem::warning(node.at, message).help("write `always`, `never` or `missing`"));
        return PullPolicy::Missing;
    }
    let choices = [
        ("always", PullPolicy::Always),
        ("never", PullPolicy::Never),
        ("missing", PullPolicy::Missing),
        ("if_not_present", PullPolicy::Missing),
    ];
    service.choice("pull_policy", &choices).unwrap_or_default()
}

fn devices(service: &Fields<'_>) -> Vec<Device> {
    let Some(node) = service.get("devices") else { return Vec::new() };
    let Value::List(list) = &node.value else {
        service.report.push(wrong_type(node, "devices", "a list").help("write one `- /dev/x:/dev/x` a line"));
        return Vec::new();
    };
    list.iter().filter_map(|item| device(item, service.report)).collect()
}

fn device(item: &Node, report: &Report) -> Option<Device> {
    let bad = |what: &str| {
        report
            .push(Problem::error(item.at, what.to_owned()).help("write `/dev/host[:/dev/container[:rwm]]`"));
        None
    };
    let (host, container, permissions) = match &item.value {
        Value::Scalar(scalar) => {
            let mut parts = scalar.text.splitn(3, ':').map(str::to_owned);
            let host = parts.next().unwrap_or_default();
            (host.clone(), parts.next().unwrap_or(host), parts.next())
        }
        _ => {
            let fields = Fields::of(item, "an entry of `devices`", report)?;
            keys::check(item, "an entry of `devices`", keys::DEVICE, report);
            let host = fields.text("source")?;
            (host.clone(), fields.text("target").unwrap_or(host), fields.text("permissions"))
        }
    };
    let permissions = permissions.unwrap_or_else(|| "rwm".to_owned());
    if !host.starts_with('/') || !container.starts_with('/') {
        return bad("a device needs absolute paths");
    }
    if permissions.is_empty() || !permissions.chars().all(|c| "rwm".contains(c)) {
        return bad(&format!("`{permissions}` is no set of device permissions"));
    }
    Some(Device { host, container, permissions })
}

fn ulimits(service: &Fields<'_>) -> BTreeMap<String, Ulimit> {
    let report = service.report;
    let Some(fields) = service.get("ulimits").and_then(|node| Fields::of(node, "ulimits", report)) else {
        return BTreeMap::new();
    };
    let mut limits = BTreeMap::new();
    for (name, entry) in fields.node.as_map().into_iter().flatten() {
        let limit = if entry.node.as_map().is_some() {
            keys::check(&entry.node, "a ulimit", keys::ULIMIT, report);
            let own = Fields { node: &entry.node, report };
            let missing = ["soft", "hard"].into_iter().find(|key| own.get(key).is_none());
            if let Some(missing) = missing {
                report.push(
                    Problem::error(entry.node.at, format!("ulimit `{name}` has no `{missing}`"))
                        .help("write both: `soft: 1024` and `hard: 2048`, or one number for both"),
                );
            }
            own.integer("soft").zip(own.integer("hard"))
        } else {
            fields.integer::<i64>(name).map(|both| (both, both))
        };
        let Some((soft, hard)) = limit else { continue };
        if hard >= 0 && (soft > hard || soft < 0) {
            let message = format!("ulimit `{name}` has a soft limit above its hard limit");
            report.push(Problem::error(entry.node.at, message).help("raise `hard`, or lower `soft`"));
        }
        limits.insert(name.clone(), Ulimit { soft, hard });
    }
    limits
}

fn logging(service: &Fields<'_>) -> Option<LogDriver> {
    let fields = Fields::of(service.get("logging")?, "logging", service.report)?;
    keys::check(fields.node, "`logging`", keys::LOGGING, service.report);
    Some(LogDriver { driver: fields.text("driver"), options: fields.full_table("options") })
}
