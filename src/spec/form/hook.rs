//! The form of [`Hooks`], and of the job before a version.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::DurationForm;
use crate::spec::{Hook, Hooks, Image, PreDeploy};

/// The form of [`Hooks`]. A label of each replica that has any holds it as JSON, too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HooksForm {
    post_start: Vec<HookForm>,
    pre_stop: Vec<HookForm>,
}

impl From<&Hooks> for HooksForm {
    fn from(hooks: &Hooks) -> Self {
        let Hooks { post_start, pre_stop } = hooks.clone();
        let forms = |hooks: Vec<Hook>| hooks.into_iter().map(HookForm::from).collect();
        Self { post_start: forms(post_start), pre_stop: forms(pre_stop) }
    }
}

impl From<HooksForm> for Hooks {
    fn from(HooksForm { post_start, pre_stop }: HooksForm) -> Self {
        let hooks = |forms: Vec<HookForm>| forms.into_iter().map(Hook::from).collect();
        Self { post_start: hooks(post_start), pre_stop: hooks(pre_stop) }
    }
}

/// The form of a [`Hook`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct HookForm {
    command: Vec<String>,
    user: Option<String>,
    privileged: bool,
    working_dir: Option<String>,
    environment: BTreeMap<String, Option<String>>,
}

impl From<Hook> for HookForm {
    fn from(Hook { command, user, privileged, working_dir, environment }: Hook) -> Self {
        Self { command, user, privileged, working_dir, environment }
    }
}

impl From<HookForm> for Hook {
    fn from(HookForm { command, user, privileged, working_dir, environment }: HookForm) -> Self {
        Self { command, user, privileged, working_dir, environment }
    }
}

/// The form of the job [`PreDeploy`] a version. It is part of no hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PreDeployForm {
    command: Vec<String>,
    image: Option<String>,
    environment: BTreeMap<String, Option<String>>,
    timeout: DurationForm,
}

impl From<&PreDeploy> for PreDeployForm {
    fn from(before: &PreDeploy) -> Self {
        let PreDeploy { command, image, environment, timeout } = before.clone();
        Self { command, image: image.map(|Image(image)| image), environment, timeout: timeout.into() }
    }
}

impl From<PreDeployForm> for PreDeploy {
    fn from(PreDeployForm { command, image, environment, timeout }: PreDeployForm) -> Self {
        Self { command, image: image.map(Image), environment, timeout: timeout.into() }
    }
}
