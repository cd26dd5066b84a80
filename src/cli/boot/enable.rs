//! `sameport enable`.

use clap::Args;
use sameport::{
    api::Client,
    spec::ProjectName,
    supervisor::paths::Paths,
    systemd::{self, Record},
};

use super::{Boot, Setup, systemctl};
use crate::cli::{
    background::{self, Start},
    context::Context,
    error::CliError,
    other_engine, output,
    takeover::{self, Unit},
    variables,
};

/// Arguments of `sameport enable`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  sameport enable                        start the project here at boot
  sameport -f compose.yaml -p shop enable --dry-run    print the systemd unit, and do nothing")]
pub struct EnableArgs {
    /// Apply the Compose file again whenever it or one of its env files changes
    #[arg(long)]
    watch: bool,
}

/// How the running supervisor was replaced by the unit's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handover {
    /// The unit's supervisor runs.
    Done,
    /// No supervisor runs.
    Nobody,
    /// A supervisor runs in the foreground of a terminal, and was not replaced.
    Foreground,
}

/// Runs `sameport enable`.
pub async fn run(context: &Context, args: EnableArgs) -> Result<(), CliError> {
    let loaded = context.load()?;
    let name = loaded.project.name.clone();
    let boot = Boot::of_this_user()?;
    let state = context.state(&name)?.load()?.state;
    refuse_missing(&variables::missing(&state, &loaded.variables))?;
    // Before the unit exists: for root, its existence decides where the supervisor's folders are.
    let paths = context.paths()?;
    let watches = args.watch
        || takeover::holder(&paths.lock(&name)).is_some_and(|holder| is_option(&holder.command, "--watch"));
    let setup = Setup::of(context, boot, &loaded, Some(watches))?;
    if context.is_dry_run() {
        output::note(&format!("would write {}", setup.path().display()))?;
        return output::line(setup.text().trim_end());
    }
    setup.boot.require(&instead(&setup))?;
    setup.check()?;
    refuse_other_units(&paths, &name)?;
    if let Some(client) = Client::connect(&paths.socket(&name)).await? {
        let version = client.version().await?;
        other_engine::check(context, &name, &version).await?;
        takeover::understands(&version, &name).or_else(|other| match other {
            newer @ takeover::OtherRelease::Newer { .. } => Err(newer),
            _ => Ok(()),
        })?;
    }
    let is_new = !setup.boot.is_ours(&name);
    let changed = setup.write().await?;
    let unit = systemd::unit_name(&name);
    if let Err(error) = systemctl::run(setup.boot.manager, &["enable", &unit]).await {
        if is_new {
            setup.take_back().await?;
        }
        return Err(error);
    }
    output::note(&format!("project `{name}` starts at boot ({unit})"))?;
    if !setup.variables.is_empty() {
        let names: Vec<_> = setup.variables.keys().map(String::as_str).collect();
        output::note(&format!(
            "stored for the next start in {}: {}",
            paths.variables(&name).display(),
            names.join(", ")
        ))?;
    }
    let manager = setup.boot.systemctl();
    match hand_over(context, &paths, &setup.boot, &name, changed).await? {
        Handover::Done => {}
        Handover::Nobody => output::note(&format!(
            "it does not run now; `{manager} start {unit}` or `sameport up -d` starts it"
        ))?,
        Handover::Foreground => output::note(
            "its supervisor keeps running in its terminal; systemd runs it after a reboot, or after `sameport up -d` once that one has ended",
        )?,
    }
    setup.boot.linger_note().map_or(Ok(()), |note| output::note(&note))
}

/// Replaces a supervisor in the background by the unit's. The old one ends without stopping a replica, and the kernel
/// keeps the settings that it had last. `paths` are those of the old supervisor.
///
/// # Errors
/// If the unit does not start. A supervisor in the background is started again then.
pub async fn hand_over(
    context: &Context,
    paths: &Paths,
    boot: &Boot,
    name: &ProjectName,
    changed: bool,
) -> Result<Handover, CliError> {
    let Some(client) = Client::connect(&paths.socket(name)).await? else { return Ok(Handover::Nobody) };
    let lock = paths.lock(name);
    let Some(holder) = takeover::holder(&lock) else { return Ok(Handover::Nobody) };
    let unit = systemd::unit_name(name);
    if Unit::of_holder(&holder).is_some_and(|of| of.name() == unit) {
        if changed {
            systemctl::run(boot.manager, &["restart", &unit]).await?;
        }
        return Ok(Handover::Done);
    }
    if !is_option(&holder.command, "--background") {
        return Ok(Handover::Foreground);
    }
    let version = client.version().await?;
    client.detach(&version).await?;
    takeover::wait_for(&lock).await?;
    let Err(error) = systemctl::run(boot.manager, &["start", &unit]).await else { return Ok(Handover::Done) };
    // Without this, no supervisor would run.
    systemctl::run(boot.manager, &["stop", &unit]).await?;
    let project = context.project_args();
    let start = Start {
        project,
        environment: Default::default(),
        resume: true,
        watch: is_option(&holder.command, "--watch"),
    };
    background::spawn(context, name, &start).await?;
    let help = format!(
        "a supervisor keeps running in the background; `{} status {unit}` shows why the unit did not start",
        boot.systemctl()
    );
    Err(CliError::failed(error.to_string(), Some(&help)))
}

/// Whether a command line contains an option.
fn is_option(command: &str, option: &str) -> bool {
    command.split(' ').any(|word| word == option)
}

/// Returns an error if a variable is not set here that was set when the running version was applied: it would be
/// missing at boot.
fn refuse_missing(names: &[&str]) -> Result<(), CliError> {
    if names.is_empty() {
        return Ok(());
    }
    Err(CliError::failed(
        format!("not set here, but had a value when the file was last applied: {}", variables::list(names)),
        Some(&format!(
            "set what `sameport up` was given, or write it in `.env`; sudo passes variables with `sudo --preserve-env={} \
             sameport enable`",
            names.join(",")
        )),
    ))
}

/// Returns an error if another unit runs the supervisor: both units would start it.
fn refuse_other_units(paths: &Paths, name: &ProjectName) -> Result<(), CliError> {
    let holder = takeover::holder(&paths.lock(name));
    let Some(unit) = holder.as_ref().and_then(Unit::of_holder) else { return Ok(()) };
    if unit.name() == systemd::unit_name(name) {
        return Ok(());
    }
    Err(CliError::failed(
        format!("project `{name}` is supervised by {} already", unit.name()),
        Some("disable and stop that unit first; stopping a supervisor leaves everything running"),
    ))
}

/// What to run at boot on a host without systemd, and the variables that it needs.
fn instead(setup: &Setup) -> String {
    let command = format!("`{}`", command_line(setup.record()));
    let names: Vec<_> = setup.variables.keys().map(String::as_str).collect();
    match names.is_empty() {
        true => command,
        false => format!("{command}, with {} in its environment,", names.join(", ")),
    }
}

/// The command that starts the supervisor, quoted for a shell.
fn command_line(record: &Record) -> String {
    let plain = |word: &String| {
        !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-=:@%+,".contains(c))
    };
    let words = record.args.iter().map(|word| match plain(word) {
        true => word.clone(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    });
    format!("sameport {} supervise --resume", words.collect::<Vec<_>>().join(" "))
}
