"""Other programs' front ends talk to the model: OpenAI's dialect, llama.cpp's and KoboldAI's, on one engine.

    mikupad, openai, lm-evaluation-harness ─ /v1/…         ┐
    mikupad, SillyTavern ─ /completion, /tokenize, …       ├─ front ─ engine
    KoboldAI Lite, mikupad ─ /api/v1/…, /api/extra/…       ┘

The door of this part. What a request may say, and what is ignored in it, is in settings.py.
"""

from starlette.routing import Route

from novelgpt.studio.dialects.front import Engine, Front
from novelgpt.studio.dialects.kobold_routes import Kobold
from novelgpt.studio.dialects.llama_routes import Llama
from novelgpt.studio.dialects.openai_routes import OpenAI


def routes(engine: Engine) -> list[Route]:
    """Return the routes of all dialects.

    Args:
        engine: that writes; its model may still be loading, which the routes then say.

    Returns:
        Routes to be mounted at the root; who may use them is for the server to say.
    """
    front = Front(engine)
    return [route for dialect in (OpenAI, Llama, Kobold) for route in dialect(front).routes()]
