//! `--dry-run`: what a command would do, and nothing is done.

use std::{sync::Arc, time::Duration};

use sameport::{
    engine::docker::Docker,
    plan::{Target, Verb, status::Trouble},
    spec::{Image, Project, ProjectName},
    supervisor::{self, Gap, Preview, Request, Step},
};

use super::{
    context::Context,
    error::CliError,
    output,
    pull::{self, Found, Pull},
    session::Session,
    state,
};

/// Shows what would be done for a request. `file` is what a supervisor would know, if none runs.
///
/// # Errors
/// When it would be refused, or the engine does not answer.
pub async fn show(
    context: &Context,
    name: &ProjectName,
    file: Option<Project>,
    request: Request,
) -> Result<(), CliError> {
    let preview = match Session::running(context, name).await? {
        Some(session) => session.preview(request).await?,
        None => {
            state::warn_of_damage(context, name)?;
            let docker = context.engine().await?;
            let settings = context.settings(name, &docker)?;
            let file = file.unwrap_or_else(|| Project::empty(name.clone()));
            supervisor::foresee(Arc::new(docker), file, request, &settings).await??
        }
    };
    if context.is_json() {
        return output::json(&preview);
    }
    text(&preview).iter().try_for_each(|line| output::line(line))?;
    output::note("nothing was changed")
}

/// What images mean now, without fetching any; says which would be fetched.
///
/// # Errors
/// When the engine does not answer.
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
                "the image {image} would be fetched anew; if its name means another one by then, that is a new version"
            ))?;
        }
    }
    Ok(found)
}

fn text(preview: &Preview) -> Vec<String> {
    let mut lines = Vec::new();
    if preview.steps.is_empty() && preview.troubles.is_empty() {
        lines.push("there is nothing to do: all is as wanted".to_owned());
    } else if !preview.steps.is_empty() {
        let mut table = output::table::plain(&["AFTER", "STEP", "WHAT", ""]);
        for step in &preview.steps {
            table.add_row([
                format!("{} s", step.after.as_secs()),
                step.verb.to_string(),
                what(step),
                details(step),
            ]);
        }
        lines.push(table.trim_fmt());
    }
    lines.extend(preview.gaps.iter().map(gap));
    lines.extend(preview.troubles.iter().map(trouble));
    lines
}

fn what(step: &Step) -> String {
    match (&step.target, &step.name) {
        (Target::Surplus(_), Some(name)) => format!("container {name}"),
        (target, _) => target.to_string(),
    }
}

fn details(step: &Step) -> String {
    match (step.verb, &step.target) {
        (Verb::Launch, _) => step.image.as_ref().map_or_else(String::new, |image| format!("from {image}")),
        (Verb::Stop, Target::Replica(..) | Target::Successor(..)) => {
            let grace = step.grace.unwrap_or_default();
            format!("once it has finished its connections; it has {} to end", seconds(grace))
        }
        (Verb::Promote, _) => "takes the place and the name".to_owned(),
        (Verb::Update, _) => "other limits, in place".to_owned(),
        (Verb::Run, _) => "post_start".to_owned(),
        _ => String::new(),
    }
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs_f64())
}

fn gap(gap: &Gap) -> String {
    let Gap { service, new_pod, hold } = gap;
    let meanwhile = match (new_pod, hold.is_zero()) {
        (true, _) => "its pod is made anew, and connections are refused until it is open".to_owned(),
        (false, true) => "connections are refused".to_owned(),
        (false, false) => {
            format!("new connections wait, up to {}, where the kernel shares its port", seconds(*hold))
        }
    };
    format!("gap: for a moment nobody serves {service}: {meanwhile}")
}

fn trouble(trouble: &Trouble) -> String {
    let help = trouble.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
    format!("in the way: {}: {}{help}", trouble.target, trouble.error)
}
