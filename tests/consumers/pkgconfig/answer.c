/* cc answer.c -o answer $(pkg-config --cflags --libs lethe) */
#include <lethe/lethe.h>
#include <stdio.h>

static int32_t print_piece(void* user, const char* text, size_t bytes, int32_t id) {
  (void)user, (void)id;
  fwrite(text, 1, bytes, stdout);
  return fflush(stdout); /* anything but 0 ends the reply */
}

int main(int argc, char** argv) {
  if (argc != 3) return fprintf(stderr, "usage: answer MODEL.lethe QUESTION\n"), 2;
  lethe_model* model = NULL;
  lethe_session* session = NULL;
  lethe_error error;
  lethe_session_params params;
  lethe_session_params_init(&params);
  params.ram_bytes = 64 << 20; /* all that model and session ever take */
  lethe_generate_params reply;
  lethe_generate_params_init(&reply);
  reply.on_piece = print_piece;
  const lethe_message question = {"user", argv[2]};
  const int failed = lethe_model_open(argv[1], &model, &error) ||
                     lethe_session_create(model, &params, &session, &error) ||
                     lethe_session_feed_turn(session, &question, 1, NULL, &error) ||
                     lethe_session_generate(session, &reply, NULL, NULL, &error);
  if (failed) fprintf(stderr, "answer: %s\n", error.message);
  lethe_session_close(session);
  lethe_model_close(model, NULL);
  return failed;
}
