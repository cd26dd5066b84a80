//! `--dry-run`: shows what a command would do, and changes nothing.

use std::sync::Arc;

use sameport::{
    api::{
        convert,
        schema::{Action, ErrorCondition, Gap, Preview, Seconds, ServiceOrder, Step, TargetKind},
    },
    engine::docker::Docker,
    spec::{Image, Project, ProjectName},
    supervisor::{self, Request},
};

use super::{
    context::Context,
    error::CliError,
    layout, output,
    pull::{self, Found, Pull},
    session::{Readable, Session},
    state,
};

/// Prints what would be done for a request. `file` is used if no supervisor runs.
///
/// # Errors
/// If the request would be rejected, or the engine does not answer.
pub async fn show(
    context: &Context,
    name: &ProjectName,
    file: Option<Project>,
    request: Request,
) -> Result<(), CliError> {
    let preview = match Session::readable(context, name).await? {
        Readable::Running(session) => session.preview(request).await?,
        Readable::OtherRelease | Readable::Nobody => {
            state::warn_of_damage(context, name)?;
            let docker = context.engine().await?;
            layout::check(context, name, file.as_ref(), &docker).await?;
            let settings = context.settings(name, &docker).await?;
            let file = file.unwrap_or_else(|| Project::empty(name.clone()));
            convert::preview(&supervisor::preview(Arc::new(docker), file, request, &settings).await??)
        }
    };
    if let Some(format) = context.data() {
        return format.item(&preview);
    }
    text(&preview).iter().try_for_each(|line| output::line(line))?;
    output::note("nothing was changed")
}

/// Like [`show`], for a command that changes a project: see [`Session::for_change`].
///
/// # Errors
/// Those of [`show`].
pub async fn change(context: &Context, request: Request) -> Result<(), CliError> {
    let error = match context.load() {
        Ok(loaded) => {
            let name = loaded.project.name.clone();
            return show(context, &name, Some(loaded.project), request).await;
        }
        Err(error) => error,
    };
    // Without the file, only a running supervisor knows the desired state.
    let (name, _) = Session::without_file(context, error).await?;
    show(context, &name, None, request).await
}

/// Resolves images to the ids that they have now. Pulls nothing, but prints what would be pulled.
///
/// # Errors
/// If the engine does not answer.
pub async fn images(docker: &Docker, project: &Project, pull: Option<Pull>) -> Result<Found, CliError> {
    let found = pull::look(docker, project).await?;
    let mut wanted: Vec<&Image> = project.services.values().map(|service| &service.container.image).collect();
    wanted.sort();
    wanted.dedup();
    for image in wanted {
        if !found.ids.contains_key(image) {
            output::note(&format!("the image {image} is not there yet, and would be fetched"))?;
        } else if pull == Some(Pull::Always) {
            output::note(&format!(
                "the image {image} would be pulled again; if its tag then refers to another image, that is a new version"
            ))?;
        }
    }
    Ok(found)
}

fn text(preview: &Preview) -> Vec<String> {
    let mut lines = Vec::new();
    if preview.steps.is_empty() && preview.errors.is_empty() {
        lines.push("nothing to do: converged".to_owned());
    } else if !preview.steps.is_empty() {
        let mut table = output::table::plain(&["AFTER", "STEP", "WHAT", ""]);
        for step in &preview.steps {
            table.add_row([
                step.after_seconds.to_string(),
                step.action.to_string(),
                what(step),
                details(step),
            ]);
        }
        lines.push(table.trim_fmt());
    }
    let order = |found: &ServiceOrder| convert::replacement_order(&found.service, &found.order);
    lines.extend(preview.orders.iter().map(order));
    lines.extend(preview.gaps.iter().map(gap));
    lines.extend(preview.errors.iter().map(error));
    lines
}

fn what(step: &Step) -> String {
    match (step.target.kind, &step.name) {
        (TargetKind::Container, Some(name)) => format!("container {name}"),
        _ => step.target.to_string(),
    }
}

fn details(step: &Step) -> String {
    match (step.action, step.target.kind) {
        (Action::Launch, _) => step.image.as_ref().map_or_else(String::new, |image| format!("from {image}")),
        (Action::Stop, TargetKind::Replica | TargetKind::Replacement) => {
            let timeout = step.stop_timeout_seconds.unwrap_or_default();
            format!("once it has finished its connections; it has {timeout} to end")
        }
        (Action::SetAside, _) => "gives up the slot and the name, and finishes its connections".to_owned(),
        (Action::Promote, _) => "takes over the slot and the name".to_owned(),
        (Action::Rename, _) => "gets its name back".to_owned(),
        (Action::Connect, _) => "to a network that it was taken off".to_owned(),
        (Action::Update, _) => "other limits, in place".to_owned(),
        (Action::Run, _) => "post_start".to_owned(),
        _ => String::new(),
    }
}

fn gap(gap: &Gap) -> String {
    let Gap { service, new_pod, hold_seconds, drops_datagrams } = gap;
    let meanwhile = match (new_pod, *hold_seconds == Seconds::default()) {
        (true, _) => "its pod is recreated, and connections are refused until it is open".to_owned(),
        (false, true) => "connections are refused".to_owned(),
        (false, false) => {
            format!("new connections wait, up to {hold_seconds}, where the kernel shares its port")
        }
    };
    let datagrams = if *drops_datagrams { "; datagrams are lost" } else { "" };
    format!("gap: for a moment no replica serves {service}: {meanwhile}{datagrams}")
}

fn error(error: &ErrorCondition) -> String {
    let help = error.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
    format!("error: {}: {}{help}", error.target, error.error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_names_the_effect_on_connections_and_datagrams() {
        let told = |new_pod, hold, drops_datagrams| {
            let hold_seconds = Seconds(hold);
            let gap = super::gap(&Gap { service: "dns".to_owned(), new_pod, hold_seconds, drops_datagrams });
            gap.strip_prefix("gap: for a moment no replica serves dns: ").map(str::to_owned)
        };
        let waits = "new connections wait, up to 30 s, where the kernel shares its port";
        assert_eq!(told(false, 30.0, false).as_deref(), Some(waits));
        assert_eq!(told(false, 30.0, true), Some(format!("{waits}; datagrams are lost")));
        assert_eq!(told(false, 0.0, true).as_deref(), Some("connections are refused; datagrams are lost"));
    }
}
