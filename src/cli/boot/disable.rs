//! `sameport disable`, and how `down` disables a project that is enabled.

use std::{collections::BTreeMap, ffi::OsString, fs};

use clap::Args;
use sameport::{
    spec::ProjectName,
    systemd::{self, Record},
};

use super::{Boot, Found, remove, systemctl};
use crate::cli::{
    background::{self, Start},
    context::Context,
    error::CliError,
    output,
    takeover::{self, Unit},
};

/// Arguments of `sameport disable`.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  sameport -p shop disable     keeps replicas running, supervised in the background"
)]
pub struct DisableArgs {}

/// Runs `sameport disable`.
pub async fn run(context: &Context, _: DisableArgs) -> Result<(), CliError> {
    let name = context.project()?;
    let boot = Boot::of_this_user()?;
    let Some(text) = unit_of(&boot, &name)? else {
        return match boot.template(&name) {
            Some(unit) => Err(CliError::failed(
                format!("{unit} starts project `{name}` at boot, and was not written by `sameport enable`"),
                Some(&format!("{} disable {unit}", boot.systemctl())),
            )),
            None => output::note(&format!("project `{name}` is not enabled")),
        };
    };
    let unit = systemd::unit_name(&name);
    if context.is_dry_run() {
        return output::note(&format!("would disable {unit}, and remove {}", boot.path(&name).display()));
    }
    let holder = takeover::holder(&context.paths()?.lock(&name));
    let is_running = holder.as_ref().and_then(Unit::of_holder).is_some_and(|of| of.name() == unit);
    let start = is_running.then(|| resumed(context, &name, systemd::record(&text)));
    systemctl::run(boot.manager, &["disable", "--now", &unit]).await?;
    let removed = forget(context, &boot, &name).await;
    // Even if that failed: running replicas stay supervised.
    if let Some(start) = start {
        background::spawn(context, &name, &start).await?;
    }
    removed?;
    output::note(&format!("project `{name}` does not start at boot any more"))?;
    match is_running {
        true => output::note(
            "replicas keep running; the supervisor now runs in the background, as after `sameport up -d`",
        ),
        false => Ok(()),
    }
}

/// Disables a project after `down`, so that the next boot does not start it.
///
/// # Errors
/// If its unit cannot be disabled.
pub async fn after_down(context: &Context, name: &ProjectName) -> Result<(), CliError> {
    let variables = context.paths()?.variables(name);
    let Ok(boot) = Boot::of_this_user() else { return remove(&variables) };
    if let Some(unit) = boot.template(name) {
        return output::note(&format!(
            "{unit} still starts the project at boot; `{} disable --now {unit}` ends that",
            boot.systemctl()
        ));
    }
    match boot.find(name)? {
        Found::Ours(_) => {}
        // The unit was removed by hand, but its variables are still there and may be secret.
        Found::Nothing => return remove(&variables),
        Found::Foreign => return Ok(()),
    }
    let unit = systemd::unit_name(name);
    let disabled = async {
        systemctl::run(boot.manager, &["disable", "--now", &unit]).await?;
        forget(context, &boot, name).await
    };
    disabled.await.map_err(|error: CliError| {
        CliError::failed(
            format!("all is removed, but project `{name}` still starts at boot: {error}"),
            Some(&format!("`sameport -p {name} disable`")),
        )
    })?;
    output::note(&format!("project `{name}` does not start at boot any more"))
}

/// The text of a project's unit, if there is one.
///
/// # Errors
/// If another program or a person wrote the unit.
fn unit_of(boot: &Boot, name: &ProjectName) -> Result<Option<String>, CliError> {
    match boot.find(name)? {
        Found::Ours(text) => Ok(Some(text)),
        Found::Nothing => Ok(None),
        Found::Foreign => Err(CliError::failed(
            format!("{} was not written by `sameport enable`; not changed", boot.path(name).display()),
            Some(&format!("`{} disable {}` disables it", boot.systemctl(), systemd::unit_name(name))),
        )),
    }
}

/// Removes the files of a disabled unit.
async fn forget(context: &Context, boot: &Boot, name: &ProjectName) -> Result<(), CliError> {
    remove(&boot.path(name))?;
    remove(&context.paths()?.variables(name))?;
    systemctl::run(boot.manager, &["daemon-reload"]).await
}

/// How to start a background supervisor that reads what the unit's supervisor read.
fn resumed(context: &Context, name: &ProjectName, record: Option<Record>) -> Start {
    let Some(record) = record else {
        return Start {
            project: context.project_args(),
            environment: BTreeMap::new(),
            resume: true,
            watch: false,
        };
    };
    let kept = context.paths().ok().and_then(|paths| fs::read_to_string(paths.variables(name)).ok());
    let mut environment = kept.and_then(|text| systemd::parse(&text)).unwrap_or_default();
    environment.extend(record.environment);
    Start {
        project: record.args.into_iter().map(OsString::from).collect(),
        environment,
        resume: true,
        watch: record.watch,
    }
}
