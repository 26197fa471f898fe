"""Messages as files in a private directory."""

from tasklink_maildrop.communicator import MaildropCommunicator

__all__ = ["MaildropCommunicator"]
