//! The forms of a service's rules: they are part of no hash, and kept in the state file.

use serde::{Deserialize, Serialize};

use super::DurationForm;
use crate::spec::{
    Balance, Dependency, DependencyCondition, FailureAction, Ipc, Order, Probe, ProbeKind, Probes,
    PullPolicy, Restart, RestartCondition, Share, Sharing, Unhealthy, Update,
};

/// A form of an enum without data: each variant with the word that stands for it.
macro_rules! words {
    ($(#[$doc:meta])* $form:ident of $type:ident { $($word:literal = $variant:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub(super) enum $form {
            $(#[serde(rename = $word)] $variant,)+
        }

        impl From<$type> for $form {
            fn from(value: $type) -> Self {
                match value {
                    $($type::$variant => Self::$variant,)+
                }
            }
        }

        impl From<$form> for $type {
            fn from(form: $form) -> Self {
                match form {
                    $($form::$variant => Self::$variant,)+
                }
            }
        }
    };
}

words! {
    /// The form of a [`PullPolicy`].
    PullPolicyForm of PullPolicy { "always" = Always, "never" = Never, "missing" = Missing }
}
words! {
    /// The form of [`Sharing`].
    SharingForm of Sharing { "auto" = Auto, "kernel" = Kernel, "application" = Application }
}
words! {
    /// The form of a [`Balance`].
    BalanceForm of Balance { "least-connections" = LeastConnections, "hash" = Hash, "random" = Random }
}
words! {
    /// The form of an [`Ipc`].
    IpcForm of Ipc { "own" = Own, "pod" = Pod, "host" = Host }
}
words! {
    /// The form of [`Unhealthy`].
    UnhealthyForm of Unhealthy { "replace" = Replace, "keep" = Keep }
}
words! {
    /// The form of a [`RestartCondition`].
    RestartConditionForm of RestartCondition {
        "never" = Never, "on_failure" = OnFailure, "always" = Always,
    }
}
words! {
    /// The form of a [`DependencyCondition`].
    ConditionForm of DependencyCondition {
        "started" = Started, "healthy" = Healthy, "completed_successfully" = CompletedSuccessfully,
    }
}
words! {
    /// The form of an [`Order`].
    OrderForm of Order { "start-first" = StartFirst, "stop-first" = StopFirst }
}
words! {
    /// The form of a [`FailureAction`].
    FailureActionForm of FailureAction { "rollback" = Rollback, "pause" = Pause, "continue" = Continue }
}

impl Default for UnhealthyForm {
    /// What services of before the rule had.
    fn default() -> Self {
        Self::Replace
    }
}

/// The form of [`Restart`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RestartForm {
    condition: RestartConditionForm,
    delay: Option<DurationForm>,
    max_attempts: Option<u32>,
    window: Option<DurationForm>,
}

impl From<Restart> for RestartForm {
    fn from(Restart { condition, delay, max_attempts, window }: Restart) -> Self {
        Self {
            condition: condition.into(),
            delay: delay.map(DurationForm::from),
            max_attempts,
            window: window.map(DurationForm::from),
        }
    }
}

impl From<RestartForm> for Restart {
    fn from(RestartForm { condition, delay, max_attempts, window }: RestartForm) -> Self {
        Self {
            condition: condition.into(),
            delay: delay.map(Into::into),
            max_attempts,
            window: window.map(Into::into),
        }
    }
}

/// The form of a [`Dependency`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DependencyForm {
    condition: ConditionForm,
    required: bool,
    restart: bool,
}

impl From<Dependency> for DependencyForm {
    fn from(Dependency { condition, required, restart }: Dependency) -> Self {
        Self { condition: condition.into(), required, restart }
    }
}

impl From<DependencyForm> for Dependency {
    fn from(DependencyForm { condition, required, restart }: DependencyForm) -> Self {
        Self { condition: condition.into(), required, restart }
    }
}

/// The form of [`Probes`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProbesForm {
    startup: Option<ProbeForm>,
    readiness: Option<ProbeForm>,
    liveness: Option<ProbeForm>,
}

impl From<&Probes> for ProbesForm {
    fn from(probes: &Probes) -> Self {
        let Probes { startup, readiness, liveness } = probes.clone();
        Self {
            startup: startup.map(ProbeForm::from),
            readiness: readiness.map(ProbeForm::from),
            liveness: liveness.map(ProbeForm::from),
        }
    }
}

impl From<ProbesForm> for Probes {
    fn from(ProbesForm { startup, readiness, liveness }: ProbesForm) -> Self {
        Self {
            startup: startup.map(Probe::from),
            readiness: readiness.map(Probe::from),
            liveness: liveness.map(Probe::from),
        }
    }
}

/// The form of a [`Probe`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ProbeForm {
    kind: ProbeKindForm,
    port: Option<u16>,
    interval: DurationForm,
    timeout: DurationForm,
    failures: u32,
    successes: u32,
    start_period: Option<DurationForm>,
}

impl From<Probe> for ProbeForm {
    fn from(probe: Probe) -> Self {
        let Probe { kind, port, interval, timeout, failures, successes, start_period } = probe;
        Self {
            kind: kind.into(),
            port,
            interval: interval.into(),
            timeout: timeout.into(),
            failures,
            successes,
            start_period: start_period.map(DurationForm::from),
        }
    }
}

impl From<ProbeForm> for Probe {
    fn from(form: ProbeForm) -> Self {
        let ProbeForm { kind, port, interval, timeout, failures, successes, start_period } = form;
        Self {
            kind: kind.into(),
            port,
            interval: interval.into(),
            timeout: timeout.into(),
            failures,
            successes,
            start_period: start_period.map(Into::into),
        }
    }
}

/// The form of a [`ProbeKind`]: `"tcp"`, or an object with the kind as its only key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum ProbeKindForm {
    #[serde(rename = "http")]
    Http { path: String },
    #[serde(rename = "tcp")]
    Tcp,
    #[serde(rename = "exec")]
    Exec { command: Vec<String> },
}

impl From<ProbeKind> for ProbeKindForm {
    fn from(kind: ProbeKind) -> Self {
        match kind {
            ProbeKind::Http { path } => Self::Http { path },
            ProbeKind::Tcp => Self::Tcp,
            ProbeKind::Exec { command } => Self::Exec { command },
        }
    }
}

impl From<ProbeKindForm> for ProbeKind {
    fn from(form: ProbeKindForm) -> Self {
        match form {
            ProbeKindForm::Http { path } => Self::Http { path },
            ProbeKindForm::Tcp => Self::Tcp,
            ProbeKindForm::Exec { command } => Self::Exec { command },
        }
    }
}

/// The form of an [`Update`]. Shares are in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct UpdateForm {
    parallelism: u32,
    delay: DurationForm,
    order: Option<OrderForm>,
    monitor: DurationForm,
    max_failure_ratio: u16,
    failure_action: FailureActionForm,
    deadline: DurationForm,
    budget: u16,
}

impl From<Update> for UpdateForm {
    fn from(update: Update) -> Self {
        let Update {
            parallelism,
            delay,
            order,
            monitor,
            max_failure_ratio,
            failure_action,
            deadline,
            budget,
        } = update;
        Self {
            parallelism,
            delay: delay.into(),
            order: order.map(OrderForm::from),
            monitor: monitor.into(),
            max_failure_ratio: max_failure_ratio.thousandths(),
            failure_action: failure_action.into(),
            deadline: deadline.into(),
            budget: budget.thousandths(),
        }
    }
}

impl From<UpdateForm> for Update {
    fn from(form: UpdateForm) -> Self {
        let UpdateForm {
            parallelism,
            delay,
            order,
            monitor,
            max_failure_ratio,
            failure_action,
            deadline,
            budget,
        } = form;
        let share = |thousandths| Share::of_thousand(thousandths).unwrap_or(Share::ALL);
        Self {
            parallelism,
            delay: delay.into(),
            order: order.map(Order::from),
            monitor: monitor.into(),
            max_failure_ratio: share(max_failure_ratio),
            failure_action: failure_action.into(),
            deadline: deadline.into(),
            budget: share(budget),
        }
    }
}
