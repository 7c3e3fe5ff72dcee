//! The life of a device set as both sides see it: pure state, no lock, no clock, no waiting.

use super::status::Status;

/// The client's view of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientState {
    /// The set does not exist for the client: not created, or closed.
    DoesNotExist,
    /// Created; the final configuration has not been fetched.
    Configurable,
    /// Configured, no device opened.
    Initializing,
    /// A device was opened.
    Active,
    /// Every device was closed by the server.
    NormallyTerminated,
    /// Aborted by somebody.
    Aborted,
}

/// The server's view of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServerState {
    /// The set does not exist for the server: not opened, or closed.
    DoesNotExist,
    /// Opened.
    Connected,
    /// The configuration has begun.
    Configurable,
    /// The configuration has ended.
    Initializing,
    /// A device was opened, or the completion agent runs.
    Active,
    /// Every device of the set was opened and closed.
    NormallyTerminated,
    /// Aborted by somebody.
    AbnormallyTerminated,
}

/// A call of the client on its set or on a device of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientCall {
    Create,
    Configuration,
    OpenDevice,
    NextCommand,
    Complete,
    Abort,
    Close,
}

/// A call of the server on its set or on a device of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServerCall {
    Open,
    Configuration,
    BeginConfiguration,
    RequestBuffers,
    QueryAvailableBuffers,
    EndConfiguration,
    OpenDevice,
    CompletionAgent,
    AllocateBuffer,
    FreeBuffer,
    SendCommand,
    CloseDevice,
    Abort,
    Close,
}

impl ClientState {
    /// The client's table: whether `call` is allowed in this state.
    pub(crate) fn admit(self, call: ClientCall) -> Result<(), Status> {
        use ClientCall as Call;
        match (self, call) {
            (Self::DoesNotExist, Call::Create) => Ok(()),
            (Self::DoesNotExist, _) | (_, Call::Create) => Err(Status::Protocol),
            (_, Call::Abort | Call::Close) => Ok(()),
            (Self::Aborted, _) => Err(Status::Abort),
            (_, Call::Configuration) => Ok(()),
            (Self::Initializing | Self::Active, Call::OpenDevice) => Ok(()),
            (Self::Active, Call::NextCommand | Call::Complete) => Ok(()),
            (_, Call::OpenDevice | Call::NextCommand | Call::Complete) => Err(Status::Protocol),
        }
    }
}

impl ServerState {
    /// The server's table: whether `call` is allowed in this state.
    pub(crate) fn admit(self, call: ServerCall) -> Result<(), Status> {
        use ServerCall as Call;
        match (self, call) {
            (Self::DoesNotExist, Call::Open) => Ok(()),
            (Self::DoesNotExist, _) | (_, Call::Open) => Err(Status::Protocol),
            (_, Call::Abort | Call::Close) => Ok(()),
            (Self::AbnormallyTerminated, Call::FreeBuffer) => Ok(()),
            // The published table has these three rows in full.
            (
                Self::AbnormallyTerminated,
                Call::BeginConfiguration | Call::RequestBuffers | Call::QueryAvailableBuffers,
            ) => Err(Status::Protocol),
            (Self::AbnormallyTerminated, _) => Err(Status::Abort),
            (_, Call::Configuration) => Ok(()),
            (Self::Connected, Call::BeginConfiguration) => Ok(()),
            (Self::Configurable, Call::EndConfiguration) => Ok(()),
            (
                Self::Configurable | Self::Initializing | Self::Active,
                Call::RequestBuffers | Call::QueryAvailableBuffers,
            ) => Ok(()),
            (
                Self::Initializing | Self::Active,
                Call::OpenDevice | Call::CompletionAgent | Call::AllocateBuffer | Call::FreeBuffer,
            ) => Ok(()),
            (Self::Active, Call::SendCommand | Call::CloseDevice) => Ok(()),
            (Self::NormallyTerminated, Call::FreeBuffer) => Ok(()),
            (Self::NormallyTerminated, Call::CloseDevice) => Err(Status::Close),
            _ => Err(Status::Protocol),
        }
    }
}

/// Both views of one set, kept in step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SetState {
    client: ClientState,
    server: ServerState,
    /// The configuration has ended; that stays so when the server leaves.
    is_configured: bool,
}

impl SetState {
    /// A set that its client has just created.
    pub(crate) fn created() -> Self {
        Self { client: ClientState::Configurable, server: ServerState::DoesNotExist, is_configured: false }
    }

    pub(crate) fn client(&self) -> ClientState {
        self.client
    }

    pub(crate) fn server(&self) -> ServerState {
        self.server
    }

    pub(crate) fn is_aborted(&self) -> bool {
        self.client == ClientState::Aborted || self.server == ServerState::AbnormallyTerminated
    }

    /// True once the final configuration can be fetched.
    pub(crate) fn is_configured(&self) -> bool {
        self.is_configured
    }

    /// Whether a server may open the set: one, before it is configured, and only while its client is there.
    pub(crate) fn check_open(&self) -> Result<(), Status> {
        self.server.admit(ServerCall::Open)?;
        match self.client {
            ClientState::Configurable if !self.is_configured => Ok(()),
            ClientState::Aborted => Err(Status::Abort),
            _ => Err(Status::Invalid),
        }
    }

    pub(crate) fn on_opened(&mut self) {
        self.server = ServerState::Connected;
    }

    /// The process that was about to open the set went away before it had: another may.
    #[cfg(feature = "shm")]
    pub(crate) fn on_unopened(&mut self) {
        if self.server == ServerState::Connected {
            self.server = ServerState::DoesNotExist;
        }
    }

    pub(crate) fn on_configuration_begun(&mut self) {
        self.server = ServerState::Configurable;
    }

    pub(crate) fn on_configuration_ended(&mut self) {
        self.server = ServerState::Initializing;
        self.is_configured = true;
    }

    pub(crate) fn on_configuration_fetched(&mut self) {
        if self.client == ClientState::Configurable {
            self.client = ClientState::Initializing;
        }
    }

    /// A device was opened by the server, or the completion agent began.
    pub(crate) fn on_server_activity(&mut self) {
        if self.server == ServerState::Initializing {
            self.server = ServerState::Active;
        }
    }

    pub(crate) fn on_client_device_opened(&mut self) {
        if self.client == ClientState::Initializing {
            self.client = ClientState::Active;
        }
    }

    /// The server closed the last device of the set.
    pub(crate) fn on_all_closed(&mut self) {
        if self.server == ServerState::Active {
            self.server = ServerState::NormallyTerminated;
        }
    }

    /// The client learned of the closing of every device of the set and holds no command of it any more.
    pub(crate) fn on_all_close_seen(&mut self) {
        if self.client == ClientState::Active {
            self.client = ClientState::NormallyTerminated;
        }
    }

    /// Abort processing; true if it is the first. A side that is not there is not touched.
    #[must_use]
    pub(crate) fn on_abort(&mut self) -> bool {
        let first = !self.is_aborted();
        if self.client != ClientState::DoesNotExist {
            self.client = ClientState::Aborted;
        }
        if self.server != ServerState::DoesNotExist {
            self.server = ServerState::AbnormallyTerminated;
        }
        first
    }

    pub(crate) fn on_client_closed(&mut self) {
        self.client = ClientState::DoesNotExist;
    }

    pub(crate) fn on_server_closed(&mut self) {
        self.server = ServerState::DoesNotExist;
    }
}
