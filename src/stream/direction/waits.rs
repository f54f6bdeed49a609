//! Says for which side a direction waits.

use super::Direction;

impl Direction {
    /// Whether the next step is to wait for the source. Its bytes or its end then wake the task.
    pub fn waits_for_source(&self) -> bool {
        self.dry && !self.ended && self.held() == 0
    }

    /// Whether the direction waits until the sink takes bytes. Holds after a [`Direction::pump`] that was not ready.
    pub fn waits_for_sink(&self) -> bool {
        let is_over = self.ended || self.framing.is_done();
        self.held() > 0 || !(self.dry || is_over)
    }
}
