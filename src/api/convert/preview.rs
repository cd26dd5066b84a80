//! Converts the preview of a command.

use crate::{
    api::schema::{Gap, Preview, ServiceOrder, Step},
    plan,
    spec::ServiceName,
    supervisor,
};

use super::{rollout, status::error_condition};

/// Converts a preview to the public schema.
#[must_use]
pub fn preview(preview: &supervisor::Preview) -> Preview {
    let step = |step: &supervisor::Step| Step {
        after_seconds: step.after.into(),
        action: step.verb.into(),
        target: (&step.target).into(),
        name: step.name.clone(),
        image: step.image.clone(),
        stop_timeout_seconds: step.grace.map(Into::into),
    };
    let gap = |gap: &supervisor::Gap| Gap {
        service: gap.service.to_string(),
        new_pod: gap.new_pod,
        hold_seconds: gap.hold.into(),
        drops_datagrams: gap.serves_udp,
    };
    let order = |(service, order): &(ServiceName, plan::ReplacementOrder)| ServiceOrder {
        service: service.to_string(),
        order: rollout::order(order),
    };
    Preview {
        orders: preview.orders.iter().map(order).collect(),
        steps: preview.steps.iter().map(step).collect(),
        gaps: preview.gaps.iter().map(gap).collect(),
        errors: preview.errors.iter().map(error_condition).collect(),
    }
}
