"""What is served: routes, validation, and the shapes of OpenAI's requests and answers."""
