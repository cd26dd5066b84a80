//! Images that are taken away again. No supervisor does that, so it is not part of [`Engine`](crate::engine::Engine).

use bollard::query_parameters::RemoveImageOptions;

use crate::{engine::EngineError, spec::Image};

use super::{Docker, unless_gone};

impl Docker {
    /// Removes an image's name, and the image with its last name.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] while a container uses it; the image stays.
    pub async fn remove_image(&self, image: &Image) -> Result<(), EngineError> {
        let removal = self.client.remove_image(&image.0, None::<RemoveImageOptions>, None);
        unless_gone(self.call(&format!("image {image}"), removal).await.map(drop))
    }
}
