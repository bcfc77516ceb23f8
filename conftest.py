"""What all tests share: examples of hypothesis have no deadline, since machines may be busy."""

from hypothesis import settings

settings.register_profile("infra-core", settings(), deadline=None)
settings.load_profile("infra-core")
