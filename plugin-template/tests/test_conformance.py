"""It keeps the contract of communicators."""

from tasklink.testing import CommunicatorConformance, Subject
from tasklink_maildrop import MaildropCommunicator
from tasklink_maildrop.settings import MaildropSettings


class TestMaildrop(CommunicatorConformance):
    """With its defaults."""

    def subject(self) -> Subject:
        """What is checked."""
        return Subject.of(MaildropCommunicator, MaildropSettings())
