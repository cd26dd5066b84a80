//! `sameport config`.

use clap::Args;
use sameport::{
    api::convert::{self, Environment},
    spec::Image,
};

use super::{context::Context, error::CliError, output};

/// Arguments of `sameport config`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  sameport config              the file as it is understood: merged, variables put in
  sameport config --quiet      whether it is valid")]
pub struct ConfigArgs {
    /// Print only errors and warnings
    #[arg(short, long)]
    quiet: bool,
    /// Print the names of services
    #[arg(long, conflicts_with = "images")]
    services: bool,
    /// Print the names of images
    #[arg(long)]
    images: bool,
    /// With `--format json`, also print the values of environments, which may contain passwords
    #[arg(long)]
    show_env: bool,
}

/// Runs `sameport config`.
pub fn run(context: &Context, args: ConfigArgs) -> Result<(), CliError> {
    let loaded = context.load()?;
    let services = loaded.project.services.values();
    if args.quiet {
        return Ok(());
    }
    if args.services || args.images {
        let mut names: Vec<String> = services
            .map(|service| match (&service.container.image, args.images) {
                (Image(image), true) => image.clone(),
                (_, false) => service.name.to_string(),
            })
            .collect();
        names.sort();
        names.dedup();
        return match context.data() {
            Some(format) => format.array(&names),
            None => names.iter().try_for_each(|name| output::line(name)),
        };
    }
    if let Some(format) = context.data() {
        let value: serde_json::Value = serde_yaml::from_str(&loaded.rendered).map_err(|error| {
            CliError::failed(format!("the file cannot be printed as JSON: {error}"), None)
        })?;
        let environment = if args.show_env { Environment::Shown } else { Environment::Hidden };
        return format.item(&convert::config(value, environment));
    }
    output::line(loaded.rendered.trim_end())
}
