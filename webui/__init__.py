"""The page to talk to, served by ``stepaudio serve`` at ``/``. ``page.mount(app)`` puts it there."""
